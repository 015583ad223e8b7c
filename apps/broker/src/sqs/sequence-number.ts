import { indexInPack } from '@rowmq/contract';

/** Bits of the sequence number behind the time. */
const TIME_SHIFT = 25n;
const COUNT_SHIFT = 17n;
const RANDOM_SHIFT = 5n;

/**
 * The SequenceNumber of a message in a FIFO queue: 20 digits that grow within a group, as ids do.
 * It holds the id's millisecond, the place among the packs of that millisecond, random bits and the
 * index in the pack. `packIdAfter` counts packs in the bits that this reads.
 */
export function sequenceNumberOf(messageId: Buffer): string {
  const time = BigInt(messageId.readUIntBE(0, 6));
  // uuid writes the 32 bits of its sequence into bytes 6 to 10: the last eight are in 9 and 10.
  const count = ((messageId.readUInt8(9) & 0b11) << 6) | (messageId.readUInt8(10) >> 2);
  const random = ((messageId.readUInt8(10) & 0b11) << 10) | (messageId.readUInt16BE(11) >> 6);
  const number =
    (time << TIME_SHIFT) |
    (BigInt(count) << COUNT_SHIFT) |
    (BigInt(random) << RANDOM_SHIFT) |
    BigInt(indexInPack(messageId));
  return String(number).padStart(20, '0');
}
