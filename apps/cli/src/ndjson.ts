import { isUtf8 } from 'node:buffer';
import type { Readable } from 'node:stream';
import { enqueueMessage, LIMITS, readRequest, RowmqError } from '@rowmq/contract';
import { CommandFailed, EXIT } from './exit-codes.js';
import { bodyOf, type NewMessage } from './message-options.js';

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
 * Yields batches that fit a request. Empty lines do not count as messages. A body that is no text
 * arrives as its bytes.
 */
export async function* batchesOf(
  input: Readable,
  options: { fields: Omit<NewMessage, 'body'>; plain: boolean; fromLine: number },
): AsyncGenerator<LineBatch> {
  let messages: NewMessage[] = [];
  let size = 0;
  let line = 0;
  let bytes = 0;
  for await (const { content, length } of linesOf(input)) {
    line += 1;
    if (line >= options.fromLine && content.length > 0) {
      const message = options.plain
        ? { ...options.fields, ...bodyOf(content, options.fields.bodyEncoding) }
        : messageOfLine(content, line, options.fields);
      const weight = Math.max(length, message.body.length);
      if (messages.length === LIMITS.batch || (messages.length > 0 && size + weight > BATCH_BYTES)) {
        yield { messages, lastLine: line - 1, bytes };
        messages = [];
        size = 0;
      }
      messages.push(message);
      size += weight;
    }
    bytes += length;
  }
  if (messages.length > 0) yield { messages, lastLine: line, bytes };
}

const [LF, CR] = [0x0a, 0x0d];

/**
 * The lines of a stream as bytes, and how many bytes each takes with its end. Lines end with LF or
 * CR LF.
 */
async function* linesOf(input: AsyncIterable<Buffer>): AsyncGenerator<{ content: Buffer; length: number }> {
  let parts: Buffer[] = [];
  for await (const chunk of input) {
    let begin = 0;
    for (let end = chunk.indexOf(LF); end >= 0; end = chunk.indexOf(LF, begin)) {
      const whole = Buffer.concat([...parts, chunk.subarray(begin, end)]);
      yield { content: whole.at(-1) === CR ? whole.subarray(0, -1) : whole, length: whole.length + 1 };
      parts = [];
      begin = end + 1;
    }
    if (begin < chunk.length) parts.push(chunk.subarray(begin));
  }
  const last = Buffer.concat(parts);
  if (last.length > 0) yield { content: last, length: last.length };
}

/** The fields of a line win over the options. */
function messageOfLine(content: Buffer, line: number, fields: Omit<NewMessage, 'body'>): NewMessage {
  // It would arrive changed.
  if (!isUtf8(content)) throw new BadLine(line, 'is not UTF-8');
  let given: unknown;
  try {
    given = JSON.parse(content.toString());
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
