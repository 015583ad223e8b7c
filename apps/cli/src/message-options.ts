import { isUtf8 } from 'node:buffer';
import { type Command, Option } from 'commander';
import { enqueueMessage, LIMITS, type EnqueueRequest } from '@rowmq/contract';
import { UsageError } from './exit-codes.js';
import { futureTime, wholeNumber, wholeSeconds } from './output/units.js';
import { checked } from './schema-options.js';

export type NewMessage = EnqueueRequest['messages'][number];

export interface MessageOptions {
  header?: Record<string, string>;
  priority?: number;
  delay?: number;
  at?: string;
  expires?: number;
  group?: string;
  deduplicationId?: string;
  base64?: true;
}

/** Adds the options of a message that is sent, except those that `without` names. */
export function addMessageOptions(command: Command, without: readonly string[] = []): Command {
  const options = [
    new Option('-H, --header <name=value>', 'a header; several times for several').argParser(headerOf),
    new Option('--priority <0-9>', '9 is the most urgent').argParser(wholeNumber(0, LIMITS.priorityMax)),
    new Option('--delay <duration>', 'not handed out before, such as 30s or 2h').argParser(wholeSeconds),
    new Option('--at <time>', 'not handed out before this time').argParser((text) => futureTime(text)),
    new Option('--expires <duration>', 'settled unless it is handed out by then').argParser(wholeSeconds),
    new Option('--group <id>', 'the group, such as a customer'),
    new Option('--deduplication-id <id>', 'a further message with this id is not stored'),
    new Option('--base64', 'the body is base64 of its bytes'),
  ];
  for (const option of options) if (!without.includes(option.long ?? '')) command.addOption(option);
  return command;
}

function headerOf(text: string, before: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new UsageError(`'${text}' is no header. Write --header name=value.`);
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}

/** The fields that the options give to each message. */
export function messageFieldsOf(options: MessageOptions): Omit<NewMessage, 'body'> {
  const { header, priority, delay, at, expires, group, deduplicationId, base64 } = options;
  return {
    ...(header && { headers: header }),
    ...(priority !== undefined && { priority }),
    ...(delay !== undefined && { delaySeconds: delay }),
    ...(at !== undefined && { availableAt: at }),
    ...(expires !== undefined && { expiresInSeconds: expires }),
    ...(group !== undefined && { groupId: group }),
    ...(deduplicationId !== undefined && { deduplicationId }),
    ...(base64 && { bodyEncoding: 'base64' as const }),
  };
}

/** A message with this body. Throws a usage error for one that no broker takes. */
export function messageOf(body: string | Buffer, options: MessageOptions): NewMessage {
  const fields = messageFieldsOf(options);
  if (typeof body === 'string') return checkedMessage({ ...fields, body });
  return checkedMessage({ ...fields, ...bodyOf(body, fields.bodyEncoding) });
}

/** The body of a message. Bytes that are no text arrive as they are. */
export function bodyOf(
  bytes: Buffer,
  encoding: NewMessage['bodyEncoding'],
): Pick<NewMessage, 'body'> & Partial<Pick<NewMessage, 'bodyEncoding'>> {
  if (encoding === 'base64' || isUtf8(bytes)) return { body: bytes.toString() };
  return { body: bytes.toString('base64'), bodyEncoding: 'base64' };
}

function checkedMessage(message: NewMessage): NewMessage {
  checked(enqueueMessage, message);
  return message;
}
