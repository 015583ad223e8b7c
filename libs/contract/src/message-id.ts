import { randomFillSync } from 'node:crypto';
import { parse, v7 } from 'uuid';

/** Most messages of one pack: the last five bits of a message's id are its index. */
export const PACK_MESSAGES = 32;
const INDEX_BITS = PACK_MESSAGES - 1;
const LAST_BYTE = 15;
/** The seven bits before the index are the size of the pack, in units of so many bytes. */
const SIZE_UNIT = 4096;
const SIZE_SHIFT = 5;
const MOST_SIZE = 0x7f;
const SIZE_BITS = MOST_SIZE << SIZE_SHIFT;

/** The last bits of a millisecond's sequence count its packs, for the SequenceNumber of SQS. */
const COUNT_BITS = 0xff;

const RANDOM_BYTES = 16;
/** Filled for many ids at a time: one random draw costs as much as the rest of an id. */
const pool = Buffer.alloc(256 * RANDOM_BYTES);
let poolUsed = pool.length;

/** The last id's millisecond, and its place among the ids of that millisecond. */
interface Tick {
  msecs: number;
  seq: number;
}
const last: Tick = { msecs: 0, seq: 0 };
/** The same for callers that move time. */
const lastMoved: Tick = { msecs: 0, seq: 0 };
/** The same of {@link packIdAfter}. */
const lastOrdered: Tick = { msecs: 0, seq: 0 };
const BEHIND_MS = 1000;

/**
 * Makes a pack's id: a UUIDv7 whose last twelve bits are zero, 16 bytes, ascending within one
 * process. {@link withPackBytes} writes the pack's size into it. Tests that move time pass `at` (ms
 * since 1970).
 */
export function newPackId(at?: number): Buffer {
  const random = draw();
  const now = at ?? Date.now();
  const tick = at === undefined ? last : lastMoved;
  // As uuid does: within a millisecond, or if the clock goes back, the sequence counts on.
  if (now > tick.msecs || (at !== undefined && now < tick.msecs)) {
    Object.assign(tick, { msecs: now, seq: firstSeq(random) });
  } else {
    tick.seq += 1;
  }
  return idOf(tick, random);
}

/**
 * Makes the id of a pack in an ordered queue. It has this time of the database's clock, in ms since
 * 1970, or that of its groups' last pack if that is later. The count within a millisecond goes on
 * from the last pack, and when it is used up, the next millisecond begins early.
 *
 * Ids ascend within one process, unless the clock goes back by more than a second: transactions at
 * the same time may have read it in another order.
 */
export function packIdAfter(lastPackId: Buffer, now: number): Buffer {
  const random = draw();
  const tick = lastOrdered;
  const lastMsecs = messageIdTime(lastPackId);
  if (now > tick.msecs || now < tick.msecs - BEHIND_MS) Object.assign(tick, { msecs: now, seq: firstSeq(random) });
  if (lastMsecs >= tick.msecs) Object.assign(tick, { msecs: lastMsecs, seq: seqIn(lastPackId) });
  if ((tick.seq & COUNT_BITS) === COUNT_BITS) Object.assign(tick, { msecs: tick.msecs + 1, seq: firstSeq(random) });
  else tick.seq += 1;
  return idOf(tick, random);
}

function firstSeq(random: Buffer): number {
  return (random.readUInt32BE(6) >>> 1) & ~COUNT_BITS;
}

/** The sequence that uuid wrote into an id: 32 bits, around the variant. */
function seqIn(id: Buffer): number {
  const high = id.readUInt16BE(6) & 0xf_ff;
  const low = ((id.readUInt8(8) & 0x3f) << 14) | (id.readUInt16BE(9) >> 2);
  return high * 2 ** 20 + low;
}

function idOf(tick: Tick, random: Buffer): Buffer {
  const id = v7({ ...tick, random }, Buffer.allocUnsafeSlow(16));
  id.writeUInt16BE(id.readUInt16BE(LAST_BYTE - 1) & ~(SIZE_BITS | INDEX_BITS), LAST_BYTE - 1);
  return id;
}

/**
 * Writes the size of a pack's payload into its new id, in place. A claim then knows how much it
 * would read before it leases anything, and no row gets longer.
 */
export function withPackBytes(id: Buffer, bytes: number): Buffer {
  const size = Math.min(MOST_SIZE, Math.floor(bytes / SIZE_UNIT));
  id.writeUInt16BE(id.readUInt16BE(LAST_BYTE - 1) | (size << SIZE_SHIFT), LAST_BYTE - 1);
  return id;
}

/** The most bytes that the payload of this pack can have, by its id: up to 4 KiB too many. */
export function mostPackBytes(id: Buffer): number {
  return (((id.readUInt16BE(LAST_BYTE - 1) & SIZE_BITS) >> SIZE_SHIFT) + 1) * SIZE_UNIT;
}

function draw(): Buffer {
  if (poolUsed === pool.length) {
    randomFillSync(pool);
    poolUsed = 0;
  }
  poolUsed += RANDOM_BYTES;
  return pool.subarray(poolUsed - RANDOM_BYTES, poolUsed);
}

/** The id of a pack's message with this index, 0 to 31. */
export function messageIdIn(packId: Buffer, index: number): Buffer {
  const id = Buffer.from(packId);
  id[LAST_BYTE] = (id[LAST_BYTE] as number) | index;
  return id;
}

/** The id of the pack that holds this message. */
export function packIdOf(messageId: Buffer): Buffer {
  const id = Buffer.from(messageId);
  id[LAST_BYTE] = (id[LAST_BYTE] as number) & ~INDEX_BITS;
  return id;
}

/** The message's index in its pack, 0 to 31. */
export function indexInPack(messageId: Buffer): number {
  return (messageId[LAST_BYTE] as number) & INDEX_BITS;
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
