import { LIMITS, type QueueSettings, type SizeLimits } from '@rowmq/contract';
import type { Queue, QueueChange } from '@rowmq/store';
import { readPolicy } from './permission.js';
import { type Address, arnOf } from './queue-address.js';
import { type AllowedSources, readAllowedSources, readRedrivePolicy } from './redrive-policy.js';
import { SqsError } from './sqs-error.js';
import {
  isTooLarge,
  MOST_TEXT_BYTES,
  settingsOf,
  type SqsSettings,
  TEXT_ATTRIBUTES,
  type TextAttribute,
  writeSettings,
} from './sqs-settings.js';

/** The most that SQS takes. A broker may take less. */
const MOST_MESSAGE_BYTES = 1_048_576;
const LEAST_MESSAGE_BYTES = 1024;
const FIFO_ONLY = ['FifoQueue', 'ContentBasedDeduplication', 'DeduplicationScope', 'FifoThroughputLimit'];
const FIGURES = [
  'ApproximateNumberOfMessages',
  'ApproximateNumberOfMessagesNotVisible',
  'ApproximateNumberOfMessagesDelayed',
];
const READ_ONLY = [...FIGURES, 'CreatedTimestamp', 'LastModifiedTimestamp', 'QueueArn'];
const WRITABLE = [
  'VisibilityTimeout',
  'DelaySeconds',
  'MessageRetentionPeriod',
  'ReceiveMessageWaitTimeSeconds',
  'MaximumMessageSize',
  ...TEXT_ATTRIBUTES,
];
const KNOWN = new Set([...WRITABLE, ...FIFO_ONLY, ...READ_ONLY]);

/** The counts of a queue. */
export interface Figures {
  ready: number;
  leased: number;
  delayed: number;
  waiting: number;
}

/** The names of attributes that a request asks for. Throws `InvalidAttributeName`. */
export function wantedNames(names: readonly string[]): Set<string> {
  for (const name of names) if (name !== 'All' && !KNOWN.has(name)) throw unknownAttribute(name);
  return names.includes('All') ? KNOWN : new Set(names);
}

/** Whether an answer with these attributes needs the counts, which cost a query. */
export function needsFigures(wanted: ReadonlySet<string>): boolean {
  return FIGURES.some((name) => wanted.has(name));
}

/** The values of the wanted attributes, all of them texts. */
export function attributesOf(
  queue: Queue,
  wanted: ReadonlySet<string>,
  {
    address,
    sizes,
    figures,
    deadLetterQueue,
  }: { address: Address; sizes: SizeLimits; figures: Figures | undefined; deadLetterQueue: string | null },
): Record<string, string> {
  const settings = settingsOf(queue);
  const isFifo = queue.ordering !== null;
  const values: Record<string, string | number | undefined> = {
    VisibilityTimeout: settings.isVisibleAtOnce === true ? 0 : queue.leaseSeconds,
    DelaySeconds: queue.delaySeconds,
    MessageRetentionPeriod: queue.messageTtlSeconds,
    ReceiveMessageWaitTimeSeconds: settings.waitSeconds ?? 0,
    MaximumMessageSize: messageBytesOf(queue, sizes),
    ...settings.texts,
    RedrivePolicy: redrivePolicyOf(queue, deadLetterQueue, address),
    SqsManagedSseEnabled: settings.texts?.SqsManagedSseEnabled ?? 'true',
    CreatedTimestamp: Math.floor(queue.createdAt / 1000),
    LastModifiedTimestamp: Math.floor(queue.changedAt / 1000),
    QueueArn: arnOf(address, queue.name),
    ...(isFifo && {
      FifoQueue: 'true',
      ContentBasedDeduplication: String(settings.contentBasedDeduplication ?? false),
      DeduplicationScope: settings.deduplicationScope ?? 'queue',
      FifoThroughputLimit: settings.fifoThroughputLimit ?? 'perQueue',
    }),
    ...(figures !== undefined && {
      ApproximateNumberOfMessages: figures.ready + figures.waiting,
      ApproximateNumberOfMessagesNotVisible: figures.leased,
      ApproximateNumberOfMessagesDelayed: figures.delayed,
    }),
  };
  return Object.fromEntries(
    Object.entries(values).flatMap(([name, value]) =>
      value === undefined || !wanted.has(name) ? [] : [[name, String(value)]],
    ),
  );
}

/** The most bytes of a message with its attributes. */
export function messageBytesOf(queue: Queue, { bodyBytes }: SizeLimits): number {
  return Math.min(settingsOf(queue).maxMessageSize ?? bodyBytes, bodyBytes);
}

/** The queues that may have this one as their dead-letter queue. */
export function allowedSourcesOf(queue: Queue): AllowedSources {
  const policy = settingsOf(queue).texts?.RedriveAllowPolicy;
  return policy === undefined ? undefined : readAllowedSources(policy);
}

/** Kept as it came: Terraform and CreateQueue compare the text. */
function redrivePolicyOf(queue: Queue, deadLetterQueue: string | null, address: Address): string | undefined {
  if (deadLetterQueue === null || queue.maxReceives === null) return undefined;
  const kept = settingsOf(queue).texts?.RedrivePolicy;
  if (kept !== undefined) {
    const policy = readRedrivePolicy(kept);
    if (policy.deadLetterQueue === deadLetterQueue && policy.maxReceives === queue.maxReceives) return kept;
  }
  return JSON.stringify({
    deadLetterTargetArn: arnOf(address, deadLetterQueue),
    maxReceiveCount: queue.maxReceives,
  });
}

/**
 * The change of a queue's settings that attributes ask for.
 *
 * Throws `InvalidAttributeName`, `InvalidAttributeValue` and `InvalidParameterValue`.
 * @param queue the queue that exists; undefined: the request creates it
 */
export function changeOf(
  attributes: Readonly<Record<string, string>>,
  queue: Queue | undefined,
  sizes: SizeLimits,
): QueueChange {
  const isFifo = queue === undefined ? isTrue(attributes['FifoQueue'], 'FifoQueue') : queue.ordering !== null;
  const settings: SqsSettings = queue === undefined ? {} : structuredClone(settingsOf(queue));
  const change: { -readonly [Key in keyof QueueSettings]?: QueueSettings[Key] } = {};
  for (const [name, value] of Object.entries(attributes)) {
    if (FIFO_ONLY.includes(name)) {
      if (!isFifo && name !== 'FifoQueue') throw unknownAttribute(name);
      readFifo(name, value, settings, queue);
      continue;
    }
    const number = (min: number, max: number): number => integerIn(name, value, min, max);
    switch (name) {
      case 'VisibilityTimeout': {
        const visibility = number(0, LIMITS.leaseSeconds);
        if (visibility === 0) settings.isVisibleAtOnce = true;
        else {
          delete settings.isVisibleAtOnce;
          change.leaseSeconds = visibility;
        }
        break;
      }
      case 'DelaySeconds':
        change.delaySeconds = number(0, 900);
        break;
      case 'MessageRetentionPeriod':
        change.messageTtlSeconds = number(60, LIMITS.messageTtlSeconds);
        break;
      case 'ReceiveMessageWaitTimeSeconds':
        settings.waitSeconds = number(0, LIMITS.waitSeconds);
        break;
      case 'MaximumMessageSize':
        settings.maxMessageSize = readMessageSize(number(LEAST_MESSAGE_BYTES, MOST_MESSAGE_BYTES), sizes);
        break;
      case 'RedrivePolicy':
        Object.assign(change, value === '' ? { deadLetterQueue: null, maxReceives: null } : readRedrivePolicy(value));
        setText(settings, name, value);
        break;
      default:
        readText(name, value, settings);
    }
  }
  return { ...change, sqs: writeSettings(settings), ...(queue === undefined && isFifo && { ordering: 'group' }) };
}

function readFifo(name: string, value: string, settings: SqsSettings, queue: Queue | undefined): void {
  switch (name) {
    case 'FifoQueue':
      if (queue !== undefined && isTrue(value, name) !== (queue.ordering !== null)) throw badValue(name);
      break;
    case 'ContentBasedDeduplication':
      settings.contentBasedDeduplication = isTrue(value, name);
      break;
    case 'DeduplicationScope':
      if (value === 'messageGroup') settings.deduplicationScope = value;
      else if (value === 'queue') delete settings.deduplicationScope;
      else throw badValue(name);
      break;
    default:
      if (value === 'perMessageGroupId') settings.fifoThroughputLimit = value;
      else if (value === 'perQueue') delete settings.fifoThroughputLimit;
      else throw badValue(name);
  }
}

function readText(name: string, value: string, settings: SqsSettings): void {
  switch (name) {
    case 'Policy':
      if (value !== '') readPolicy(value);
      break;
    case 'RedriveAllowPolicy':
      if (value !== '') readAllowedSources(value);
      break;
    case 'KmsDataKeyReusePeriodSeconds':
      integerIn(name, value, 60, 86_400);
      break;
    case 'SqsManagedSseEnabled':
      isTrue(value, name);
      break;
    case 'KmsMasterKeyId':
      break;
    default:
      throw unknownAttribute(name);
  }
  setText(settings, name, name === 'SqsManagedSseEnabled' ? value.toLowerCase() : value);
}

function setText(settings: SqsSettings, name: TextAttribute, value: string): void {
  if (isTooLarge(value)) throw badValue(name, `it may have at most ${MOST_TEXT_BYTES} bytes`);
  const { [name]: _, ...others } = settings.texts ?? {};
  const texts = value === '' ? others : { ...others, [name]: value };
  if (Object.keys(texts).length > 0) settings.texts = texts;
  else delete settings.texts;
}

/** A size that the broker does not take would be a promise that it breaks later. */
function readMessageSize(bytes: number, { bodyBytes }: SizeLimits): number {
  if (bytes <= bodyBytes) return bytes;
  throw new SqsError(
    'InvalidAttributeValue',
    `Invalid value for the parameter MaximumMessageSize: this broker takes messages of up to ${bodyBytes} bytes. Ask for that or less, or raise ROWMQ_MAX_BODY_BYTES of the broker.`,
  );
}

function integerIn(name: string, text: string, min: number, max: number): number {
  const value = /^\d{1,10}$/.test(text) ? Number(text) : -1;
  if (value < min || value > max) throw badValue(name);
  return value;
}

/** Users of boto send `True`. */
function isTrue(value: string | undefined, name: string): boolean {
  const text = (value ?? 'false').toLowerCase();
  if (text !== 'true' && text !== 'false') throw badValue(name);
  return text === 'true';
}

function badValue(name: string, reason?: string): SqsError {
  const end = reason === undefined ? '.' : `: ${reason}.`;
  return new SqsError('InvalidAttributeValue', `Invalid value for the parameter ${name}${end}`);
}

function unknownAttribute(name: string): SqsError {
  return new SqsError('InvalidAttributeName', `Unknown Attribute ${name}.`);
}

/** The attributes of an existing queue that a creation with these attributes would contradict. */
export function differing(
  given: Readonly<Record<string, string>>,
  existing: Readonly<Record<string, string>>,
  isSame: (name: string, one: string, other: string) => boolean = sameText,
): string[] {
  return Object.entries(given).flatMap(([name, value]) => (isSame(name, value, existing[name] ?? '') ? [] : [name]));
}

function sameText(name: string, one: string, other: string): boolean {
  if (name === 'FifoQueue' && other === '') return one.toLowerCase() === 'false';
  if (name !== 'RedrivePolicy' && name !== 'Policy' && name !== 'RedriveAllowPolicy')
    return one.toLowerCase() === other.toLowerCase();
  if (one === other) return true;
  if (one === '' || other === '') return false;
  if (name === 'RedrivePolicy') {
    const [a, b] = [readRedrivePolicy(one), readRedrivePolicy(other)];
    return a.deadLetterQueue === b.deadLetterQueue && a.maxReceives === b.maxReceives;
  }
  return false;
}

/** Refuses attributes that only an answer can have. */
export function refuseReadOnly(attributes: Readonly<Record<string, string>>): void {
  for (const name of Object.keys(attributes)) {
    if (!KNOWN.has(name) || READ_ONLY.includes(name)) throw unknownAttribute(name);
  }
}
