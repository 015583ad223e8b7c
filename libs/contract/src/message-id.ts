import { randomFillSync } from 'node:crypto';
import { parse, v7 } from 'uuid';

const RANDOM_BYTES = 16;
/** Filled for many ids at a time: one random draw costs as much as the rest of an id. */
const pool = Buffer.alloc(256 * RANDOM_BYTES);
let poolUsed = pool.length;
const last = { msecs: 0, seq: 0 };

/**
 * Makes a message's id: a UUIDv7, 16 bytes, ascending within one process. Tests that move time pass
 * `at` (ms since 1970).
 */
export function newMessageId(at?: number): Buffer {
  const random = draw();
  if (at !== undefined) return Buffer.from(v7({ msecs: at, random }, new Uint8Array(16)));
  const now = Date.now();
  // As uuid does: within a millisecond, or if the clock goes back, the sequence counts on.
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

/** Writes an id as text: `01890a5d-ac96-774b-bcce-b302099a8057`. */
export function formatMessageId(id: Buffer): string {
  const hex = id.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** Reads the text of {@link formatMessageId}. Throws TypeError for any other text. */
export function parseMessageId(text: string): Buffer {
  return Buffer.from(parse(text));
}

/** The broker's clock when it made this id, in ms since 1970: a UUIDv7's first 48 bits. */
export function messageIdTime(id: Buffer): number {
  return id.readUIntBE(0, 6);
}

/**
 * The lowest possible id of a message from `time` (ms since 1970). So a range of ids is a range of
 * time.
 */
export function lowestMessageId(time: number): Buffer {
  const id = Buffer.alloc(16);
  id.writeUIntBE(time, 0, 6);
  return id;
}
