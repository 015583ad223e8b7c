import type { Queue } from '@rowmq/store';

/** The column `sqs` of a queue: the attributes and tags that REST does not know. */
export interface SqsSettings {
  waitSeconds?: number;
  maxMessageSize?: number;
  /** The VisibilityTimeout is 0. A lease lasts at least a second, so the queue's own stays. */
  isVisibleAtOnce?: boolean;
  contentBasedDeduplication?: boolean;
  deduplicationScope?: 'messageGroup';
  fifoThroughputLimit?: 'perMessageGroupId';
  /** Texts that are kept as they came. */
  texts?: Partial<Record<TextAttribute, string>>;
  tags?: Record<string, string>;
}

/** Attributes whose values RowMQ keeps and shows. */
export const TEXT_ATTRIBUTES = [
  'Policy',
  'RedrivePolicy',
  'RedriveAllowPolicy',
  'KmsMasterKeyId',
  'KmsDataKeyReusePeriodSeconds',
  'SqsManagedSseEnabled',
] as const;
/** As for a policy on AWS. Every broker holds the settings of all queues in memory. */
export const MOST_TEXT_BYTES = 8192;
export type TextAttribute = (typeof TEXT_ATTRIBUTES)[number];

/** Whether a text is too large to be kept as an attribute. */
export function isTooLarge(text: string): boolean {
  return Buffer.byteLength(text) > MOST_TEXT_BYTES;
}

const NONE: SqsSettings = {};
/** Settings by their text: a receive would otherwise parse them each time. */
const parsed = new Map<string, SqsSettings>();
const MOST_PARSED = 1000;

/** Callers must not change the result. */
export function settingsOf({ sqs }: Pick<Queue, 'sqs'>): SqsSettings {
  if (sqs === null) return NONE;
  let settings = parsed.get(sqs);
  if (settings === undefined) {
    if (parsed.size >= MOST_PARSED) parsed.clear();
    parsed.set(sqs, (settings = JSON.parse(sqs) as SqsSettings));
  }
  return settings;
}

/** The column `sqs`. */
export function writeSettings(settings: SqsSettings): string | null {
  const text = JSON.stringify(settings);
  return text === '{}' ? null : text;
}
