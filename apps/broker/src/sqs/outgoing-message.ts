import { createHash } from 'node:crypto';
import { LIMITS, type StoredHeader, type SystemValues, writeStored } from '@rowmq/contract';
import type { NewMessage, Queue } from '@rowmq/store';
import { digestOf, readAttributes, sizeOf } from './message-attributes.js';
import { invalidParameter, invalidValue, missing, SqsError } from './sqs-error.js';
import type { Input } from './sqs-input.js';
import { settingsOf } from './sqs-settings.js';
import { isSqsText, md5 } from './sqs-text.js';

const MOST_DELAY_SECONDS = 900;
/** Visible ASCII. */
const GROUP_OR_ID = /^[!-~]{1,128}$/;
const TRACE_HEADER = 'AWSTraceHeader';
/** It is no part of the message's size, so it needs a limit of its own. */
const MOST_TRACE_BYTES = 1024;

type Sent = Omit<Input<'SendMessage'>, 'QueueUrl'>;

/** A message that may be stored, and the digests for its answer. */
export interface Outgoing {
  message: NewMessage;
  bytes: number;
  digests: Record<string, string>;
}

interface Where {
  queue: Queue;
  /** The largest message. */
  messageBytes: number;
  sender: string | undefined;
  isBatch?: boolean;
}

/** Checks a message that is sent, and translates it. Throws as SQS does. */
export function toOutgoing(sent: Sent, { queue, messageBytes, sender, isBatch = false }: Where): Outgoing {
  const { MessageBody: body } = sent;
  if (body === undefined || body === '') throw missing('MessageBody');
  if (!isSqsText(body))
    throw new SqsError(
      'InvalidMessageContents',
      'Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF',
    );
  const attributes = readAttributes(sent.MessageAttributes);
  const bytes = Buffer.byteLength(body) + sizeOf(attributes);
  if (bytes > messageBytes)
    throw invalidParameter(
      `One or more parameters are invalid. Reason: Message must be shorter than ${messageBytes} bytes.`,
    );
  const trace = readTrace(sent.MessageSystemAttributes);
  const fifo = queue.ordering === null ? ofStandard(sent) : ofFifo(sent, queue, body, isBatch);
  const system: SystemValues = {
    ...(sender !== undefined && { sender }),
    ...(fifo.shownId !== undefined && { deduplicationId: fifo.shownId }),
    ...(trace.size > 0 && { traceHeader: trace.get(TRACE_HEADER) as string }),
  };
  const digests = {
    MD5OfMessageBody: md5(body),
    MD5OfMessageAttributes: digestOf(attributes),
    MD5OfMessageSystemAttributes: digestOf(trace),
  };
  return {
    bytes,
    digests: Object.fromEntries(
      Object.entries(digests).filter((entry): entry is [string, string] => entry[1] !== undefined),
    ),
    message: {
      body: Buffer.from(body),
      headers: writeStored(attributes, system),
      priority: LIMITS.priorityDefault,
      delaySeconds: fifo.delaySeconds,
      availableAt: undefined,
      expiresInSeconds: undefined,
      deduplicationId: fifo.deduplicationId,
      ...(fifo.groupId !== undefined && { groupId: fifo.groupId }),
    },
  };
}

/** The members that mean something else in queues of the other kind. */
interface OfKind {
  delaySeconds: number | undefined;
  groupId: string | undefined;
  /** The queue remembers this. */
  deduplicationId?: string;
  /** A receive shows this. */
  shownId?: string;
}

/** A group on a standard queue names a tenant, whose messages do not delay those of others. */
function ofStandard({ DelaySeconds, MessageGroupId, MessageDeduplicationId }: Sent): OfKind {
  if (DelaySeconds !== undefined && (DelaySeconds < 0 || DelaySeconds > MOST_DELAY_SECONDS))
    throw invalidValue(DelaySeconds, 'DelaySeconds', `DelaySeconds must be >= 0 and <= ${MOST_DELAY_SECONDS}.`);
  if (MessageDeduplicationId !== undefined)
    throw invalidValue(
      MessageDeduplicationId,
      'MessageDeduplicationId',
      'The request includes a parameter that is not valid for this queue type.',
    );
  if (MessageGroupId !== undefined) checkId(MessageGroupId, 'MessageGroupId');
  return { delaySeconds: DelaySeconds, groupId: MessageGroupId };
}

function ofFifo(
  { DelaySeconds, MessageGroupId, MessageDeduplicationId }: Sent,
  queue: Queue,
  body: string,
  isBatch: boolean,
): OfKind {
  if (MessageGroupId === undefined || MessageGroupId === '') {
    const error = missing('MessageGroupId');
    throw isBatch ? invalidParameter(error.message) : error;
  }
  checkId(MessageGroupId, 'MessageGroupId');
  if (DelaySeconds !== undefined && DelaySeconds !== 0)
    throw invalidValue(
      DelaySeconds,
      'DelaySeconds',
      'The request include parameter that is not valid for this queue type.',
    );
  if (MessageDeduplicationId !== undefined) checkId(MessageDeduplicationId, 'MessageDeduplicationId');
  const { contentBasedDeduplication, deduplicationScope } = settingsOf(queue);
  const shownId = MessageDeduplicationId ?? (contentBasedDeduplication === true ? sha256(body) : undefined);
  if (shownId === undefined)
    throw invalidParameter(
      'The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly',
    );
  // No id holds a space, so a group and an id together are as distinct as both.
  const deduplicationId = deduplicationScope === 'messageGroup' ? `${MessageGroupId} ${shownId}` : shownId;
  return { delaySeconds: undefined, groupId: MessageGroupId, deduplicationId, shownId };
}

function checkId(id: string, parameter: string): void {
  if (GROUP_OR_ID.test(id)) return;
  throw invalidValue(
    id,
    parameter,
    `${parameter} can only include alphanumeric and punctuation characters. 1 to 128 in length.`,
  );
}

/** The one system attribute that a client may send. */
function readTrace(given: Sent['MessageSystemAttributes']): Map<string, StoredHeader> {
  const attributes = new Map(Object.entries(given ?? {}));
  for (const name of attributes.keys())
    if (name !== TRACE_HEADER)
      throw invalidParameter(
        `Message system attribute name '${name}' is invalid. The only one that can be sent is ${TRACE_HEADER}.`,
      );
  const { DataType, StringValue } = attributes.get(TRACE_HEADER) ?? {};
  if (attributes.size === 0) return new Map();
  if (DataType !== 'String' || StringValue === undefined || StringValue === '')
    throw invalidParameter(
      `The message system attribute '${TRACE_HEADER}' must contain a non-empty value of type 'String'.`,
    );
  if (Buffer.byteLength(StringValue) > MOST_TRACE_BYTES)
    throw invalidParameter(
      `The message system attribute '${TRACE_HEADER}' must have at most ${MOST_TRACE_BYTES} bytes.`,
    );
  return new Map([[TRACE_HEADER, StringValue]]);
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
