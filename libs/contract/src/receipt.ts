import { RowmqError } from './errors.js';

/** The contents of a receipt: a message, and one lease of it. */
export interface Receipt {
  /** The message's id, 16 bytes. */
  messageId: Buffer;
  /** The lease's token, 8 bytes: the fence. */
  leaseToken: Buffer;
}

/** The first byte of every receipt, so that a later version can carry more. */
const VERSION = 1;
const ID_BYTES = 16;
const TOKEN_BYTES = 8;
const ID_AT = 1;
const TOKEN_AT = ID_AT + ID_BYTES;
const BYTES = TOKEN_AT + TOKEN_BYTES;

/**
 * Writes a receipt as 34 characters of base64url: a version byte, 16 bytes of message id and 8
 * bytes of lease token. Opaque to clients.
 */
export function encodeReceipt(messageId: Buffer, leaseToken: Buffer): string {
  messageId.copy(scratch, ID_AT);
  leaseToken.copy(scratch, TOKEN_AT);
  return scratch.toString('base64url');
}

const scratch = Buffer.alloc(BYTES, VERSION);

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
  return { messageId: bytes.subarray(ID_AT, TOKEN_AT), leaseToken: bytes.subarray(TOKEN_AT) };
}
