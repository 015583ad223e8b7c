import { RowmqError } from './errors.js';

/** The contents of a receipt: a delivery, and one lease of it. */
export interface Receipt {
  /** The message's id, 16 bytes. */
  messageId: Buffer;
  /** The lease's token, 8 bytes: the fence. */
  leaseToken: Buffer;
}

const ID_BYTES = 16;
const TOKEN_BYTES = 8;
const RECEIPT = /^[A-Za-z0-9_-]{32}$/;

/**
 * Writes a receipt as 32 characters of base64url: 16 bytes of message id and 8 bytes of lease
 * token. Opaque to clients.
 */
export function encodeReceipt(messageId: Buffer, leaseToken: Buffer): string {
  messageId.copy(scratch, 0);
  leaseToken.copy(scratch, ID_BYTES);
  return scratch.toString('base64url');
}

const scratch = Buffer.alloc(ID_BYTES + TOKEN_BYTES);

/**
 * Reads a receipt. Throws `invalid-request` for a text that {@link encodeReceipt} cannot have
 * written.
 */
export function decodeReceipt(receipt: string): Receipt {
  if (!RECEIPT.test(receipt)) {
    throw new RowmqError(
      'invalid-request',
      'A receipt is the 32 characters that dequeue answered; send it back unchanged.',
    );
  }
  const bytes = Buffer.from(receipt, 'base64url');
  return { messageId: bytes.subarray(0, ID_BYTES), leaseToken: bytes.subarray(ID_BYTES) };
}
