import { randomFillSync } from 'node:crypto';
import { parse, v7 } from 'uuid';

const RANDOM_BYTES = 16;
/** Drawn many ids' worth at a time: a draw costs as much as the rest of an id. */
const pool = Buffer.alloc(256 * RANDOM_BYTES);
let poolUsed = pool.length;
const last = { msecs: 0, seq: 0 };

/** Makes a message's id: a UUIDv7, 16 bytes, rising within one process. `at` (ms since 1970) is for tests that move time. */
export function newMessageId(at?: number): Buffer {
  const random = draw();
  if (at !== undefined) return Buffer.from(v7({ msecs: at, random }, new Uint8Array(16)));
  const now = Date.now();
  // As uuid does by itself: within a millisecond, or when the clock goes back, the sequence counts on.
  if (now > last.msecs) Object.assign(last, { msecs: now, seq: random.readUInt32BE(6) >>> 1 });
  else last.seq += 1;
  return v7({ ...last, random }, Buffer.allocUnsafeSlow(16));
}

function draw(): Buffer {
  if (poolUsed === pool.length) {
    randomFillSync(pool);
    poolUsed = 0;
  }
  poolUsed += RANDOM_BYTES;
  return pool.subarray(poolUsed - RANDOM_BYTES, poolUsed);
}

/** The id as people and JSON write it: `01890a5d-ac96-774b-bcce-b302099a8057`. */
export function formatMessageId(id: Buffer): string {
  const hex = id.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** Reads what {@link formatMessageId} writes. Throws TypeError for anything else. */
export function parseMessageId(text: string): Buffer {
  return Buffer.from(parse(text));
}

/** The broker's clock when it stamped this id, in ms since 1970: a UUIDv7's first 48 bits. */
export function messageIdTime(id: Buffer): number {
  return id.readUIntBE(0, 6);
}

/** The lowest id that a message stamped at `time` (ms since 1970) can have: a range of ids is a range of time. */
export function lowestMessageId(time: number): Buffer {
  const id = Buffer.alloc(16);
  id.writeUIntBE(time, 0, 6);
  return id;
}
