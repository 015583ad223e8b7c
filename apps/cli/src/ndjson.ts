import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { enqueueMessage, LIMITS, readRequest, RowmqError } from '@rowmq/contract';
import { CommandFailed, EXIT } from './exit-codes.js';
import type { NewMessage } from './message-options.js';

/** Lines that become one request. */
export interface LineBatch {
  messages: NewMessage[];
  /** The number of the last line of the batch. */
  lastLine: number;
  /** Bytes of the input up to there. */
  bytes: number;
}

/** A broker takes at least this much in a request. A batch keeps below it. */
const BATCH_BYTES = 3 * 1024 * 1024;

/**
 * Reads one message from each line, as `enqueue` takes it, or as a body that is the whole line.
 * Yields batches that fit a request. Empty lines do not count as messages.
 */
export async function* batchesOf(
  input: Readable,
  options: { fields: Omit<NewMessage, 'body'>; plain: boolean; fromLine: number },
): AsyncGenerator<LineBatch> {
  let messages: NewMessage[] = [];
  let size = 0;
  let line = 0;
  let bytes = 0;
  for await (const text of createInterface({ input, crlfDelay: Infinity })) {
    line += 1;
    const length = Buffer.byteLength(text) + 1;
    if (line >= options.fromLine && text !== '') {
      const message = options.plain ? { ...options.fields, body: text } : messageOfLine(text, line, options.fields);
      if (messages.length === LIMITS.batch || (messages.length > 0 && size + length > BATCH_BYTES)) {
        yield { messages, lastLine: line - 1, bytes };
        messages = [];
        size = 0;
      }
      messages.push(message);
      size += length;
    }
    bytes += length;
  }
  if (messages.length > 0) yield { messages, lastLine: line, bytes };
}

/** The fields of a line win over the options. */
function messageOfLine(text: string, line: number, fields: Omit<NewMessage, 'body'>): NewMessage {
  let given: unknown;
  try {
    given = JSON.parse(text);
  } catch (error) {
    throw new BadLine(line, `is not JSON: ${(error as Error).message}`);
  }
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw new BadLine(line, 'is no JSON object such as {"body":"hello"}; for lines that are bodies use --lines');
  const message = { ...fields, ...given } as NewMessage;
  // A body that is an object is JSON that somebody forgot to quote.
  const { body } = given as { body?: unknown };
  if (typeof body === 'object' && body !== null) message.body = JSON.stringify(body);
  try {
    readRequest(enqueueMessage, message);
  } catch (error) {
    if (error instanceof RowmqError) throw new BadLine(line, `is no message: ${error.message}`);
    throw error;
  }
  return message;
}

/** A line of the input is at fault. */
export class BadLine extends CommandFailed {
  constructor(
    readonly line: number,
    what: string,
  ) {
    super(`Line ${line} ${what}`, EXIT.usage);
  }
}
