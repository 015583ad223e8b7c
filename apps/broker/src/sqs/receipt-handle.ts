import { SqsError } from './sqs-error.js';

const QUEUE_BYTES = 4;
/** The characters of so many bytes in base64url. */
const QUEUE_CHARS = 6;

/** A ReceiptHandle: the queue's id, so that a handle of another queue is refused, and a receipt. */
export function writeHandle(queueId: number, receipt: string): string {
  const id = Buffer.alloc(QUEUE_BYTES);
  id.writeUInt32BE(queueId);
  return id.toString('base64url') + receipt;
}

/** The receipt in a handle. Throws `ReceiptHandleIsInvalid` unless it is of this queue. */
export function readHandle(handle: string, queueId: number): string {
  const id = Buffer.from(handle.slice(0, QUEUE_CHARS), 'base64url');
  if (id.length !== QUEUE_BYTES || id.readUInt32BE() !== queueId) throw invalidHandle(handle);
  return handle.slice(QUEUE_CHARS);
}

export function invalidHandle(handle: string): SqsError {
  return new SqsError(
    'ReceiptHandleIsInvalid',
    `The input receipt handle "${handle.slice(0, 200)}" is not a valid receipt handle.`,
  );
}
