import { encodeReceipt, formatMessageId, messageIdTime, readStored } from '@rowmq/contract';
import { deadLetteringOf, type LeasedMessage, type Queue } from '@rowmq/store';
import { digestOf, select, toAnswer } from './message-attributes.js';
import { type Address, arnOf } from './queue-address.js';
import { writeHandle } from './receipt-handle.js';
import { sequenceNumberOf } from './sequence-number.js';
import { SqsError } from './sqs-error.js';
import { bodyText, md5 } from './sqs-text.js';

/** System attributes that a receive can ask for. */
const SYSTEM = new Set([
  'All',
  'SenderId',
  'SentTimestamp',
  'ApproximateReceiveCount',
  'ApproximateFirstReceiveTimestamp',
  'MessageGroupId',
  'MessageDeduplicationId',
  'SequenceNumber',
  'AWSTraceHeader',
  'DeadLetterQueueSourceArn',
]);

/** The attributes that a receive asks for. */
export interface Wanted {
  system: ReadonlySet<string>;
  attributes: readonly string[];
}

/** Throws `InvalidAttributeName`. */
export function readWanted({
  AttributeNames = [],
  MessageSystemAttributeNames = [],
  MessageAttributeNames = [],
}: {
  AttributeNames?: string[] | undefined;
  MessageSystemAttributeNames?: string[] | undefined;
  MessageAttributeNames?: string[] | undefined;
}): Wanted {
  const system = new Set([...AttributeNames, ...MessageSystemAttributeNames]);
  for (const name of system)
    if (!SYSTEM.has(name)) throw new SqsError('InvalidAttributeName', `Unknown Attribute ${name}.`);
  return { system: system.has('All') ? SYSTEM : system, attributes: MessageAttributeNames };
}

interface Where {
  queue: Queue;
  address: Address;
  wanted: Wanted;
  /** The names of queues by id. */
  names: ReadonlyMap<number, string>;
}

/** A received message as SQS answers it. */
export function toIncoming(message: LeasedMessage, where: Where): Record<string, unknown> {
  const { queue, wanted } = where;
  const body = bodyText(message.body);
  const stored = readStored(message.headers);
  const attributes = select(stored.attributes, wanted.attributes);
  const system = wanted.system.size === 0 ? {} : systemOf(message, stored.system, where);
  return {
    MessageId: formatMessageId(message.messageId),
    ReceiptHandle: writeHandle(queue.id, encodeReceipt(message)),
    MD5OfBody: md5(body),
    Body: body,
    ...(Object.keys(system).length > 0 && { Attributes: system }),
    ...(attributes.size > 0 && {
      MD5OfMessageAttributes: digestOf(attributes),
      MessageAttributes: Object.fromEntries([...attributes].map(([name, value]) => [name, toAnswer(value)])),
    }),
  };
}

function systemOf(
  message: LeasedMessage,
  { sender, deduplicationId, traceHeader }: ReturnType<typeof readStored>['system'],
  { queue, address, wanted, names }: Where,
): Record<string, string> {
  const isFifo = queue.ordering !== null;
  const dead = deadLetteringOf(message.moves);
  const source = dead && names.get(dead.sourceQueueId);
  const values: Record<string, string | number | undefined> = {
    SenderId: sender ?? address.account,
    SentTimestamp: messageIdTime(message.messageId),
    ApproximateReceiveCount: message.receiveCount + (dead?.receives ?? 0),
    ApproximateFirstReceiveTimestamp: message.firstReceivedAt,
    MessageGroupId: message.groupId,
    MessageDeduplicationId: deduplicationId,
    SequenceNumber: isFifo ? sequenceNumberOf(message.messageId) : undefined,
    AWSTraceHeader: traceHeader,
    DeadLetterQueueSourceArn: source === undefined ? undefined : arnOf(address, source),
  };
  return Object.fromEntries(
    Object.entries(values).flatMap(([name, value]) =>
      value === undefined || !wanted.system.has(name) ? [] : [[name, String(value)]],
    ),
  );
}
