import { RowmqError } from './errors.js';

/** The contents of a receipt: a message, and one lease of it. */
export interface Receipt {
  /** The message's id, 16 bytes. */
  messageId: Buffer;
  /** The lease's token, 8 bytes: the fence. */
  leaseToken: Buffer;
  /**
   * The message's delivery as it was leased: its `part`, and its members as a bit mask. Both are
   * hints. An ack that finds the delivery unchanged settles it in fewer statements.
   */
  part: number;
  members: number;
}

/** The first byte of every receipt, so that a later version can carry more. */
const VERSION = 1;
const ID_BYTES = 16;
const TOKEN_BYTES = 8;
const ID_AT = 1;
const TOKEN_AT = ID_AT + ID_BYTES;
const PART_AT = TOKEN_AT + TOKEN_BYTES;
const MEMBERS_AT = PART_AT + 2;
const BYTES = MEMBERS_AT + 4;

/**
 * Writes a receipt as 42 characters of base64url: a version byte, 16 bytes of message id, 8 bytes
 * of lease token, 2 bytes of part and 4 bytes of members. Opaque to clients.
 */
export function encodeReceipt({ messageId, leaseToken, part, members }: Receipt): string {
  messageId.copy(scratch, ID_AT);
  leaseToken.copy(scratch, TOKEN_AT);
  scratch.writeUInt16BE(part, PART_AT);
  scratch.writeUInt32BE(members, MEMBERS_AT);
  return scratch.toString('base64url');
}

const scratch = Buffer.alloc(BYTES, VERSION);

/**
 * The start of a receipt, without its hints: equal for all receipts of one message and lease. It
 * has all bits of the id and all but two of the token.
 */
export function leaseOf(receipt: string): string {
  return receipt.slice(0, Math.floor((PART_AT * 8) / 6));
}

/**
 * Reads a receipt. Throws `invalid-request` for a text that {@link encodeReceipt} cannot have
 * written.
 */
export function decodeReceipt(receipt: string): Receipt {
  const bytes = Buffer.from(receipt, 'base64url');
  // Node ignores characters that are not base64url, so only a repeat of the text proves it.
  if (bytes.length !== BYTES || bytes[0] !== VERSION || bytes.toString('base64url') !== receipt) {
    throw new RowmqError('invalid-request', 'A receipt is the text that dequeue answered; send it back unchanged.');
  }
  return {
    messageId: bytes.subarray(ID_AT, TOKEN_AT),
    leaseToken: bytes.subarray(TOKEN_AT, PART_AT),
    part: bytes.readUInt16BE(PART_AT),
    members: bytes.readUInt32BE(MEMBERS_AT),
  };
}
