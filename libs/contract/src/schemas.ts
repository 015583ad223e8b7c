import { z } from 'zod';
import { ERROR_CODES } from './errors.js';
import { LIMITS, QUEUE_DEFAULTS } from './limits.js';

/*
 * Every request and answer of REST contract v1. One schema gives validation, the TypeScript type
 * and OpenAPI. Requests are strict: an unknown field is a typo that must not be ignored.
 */

const EXAMPLE_ID = '019a0b5d-ac96-774b-8cce-b302099a8057';
const EXAMPLE_RECEIPT = 'AZoLXayWd0uMzrMCCZqAV2lG9c0XgQ2T';
const EXAMPLE_TIME = '2026-11-22T18:38:26.123Z';

const seconds = (min: number, max: number) => z.int().min(min).max(max);
const wellFormed = (text: string) => text.isWellFormed();
const NOT_WELL_FORMED =
  'holds half of a surrogate pair, which UTF-8 cannot carry; send such data with bodyEncoding base64';

const NAME_FAULT =
  "must be 1 to 80 of the characters A-Z a-z 0-9 . _ -, and neither '.' nor '..', which no URL can carry";

/**
 * Clients and proxies remove the path segments `.` and `..`, also if they are percent-encoded. The
 * pattern has no lookahead, which many languages do not know.
 */
export const queueName = z
  .string()
  .max(80, NAME_FAULT)
  .regex(/^(?:\.{0,2}[A-Za-z0-9_-]|\.{3})[A-Za-z0-9._-]*$/, NAME_FAULT)
  .meta({ example: 'orders', description: 'Name of a queue' });

export const messageIdText = z
  .string()
  .regex(
    /^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$/,
    'must be a message id, a UUID such as enqueue answers',
  )
  .meta({ example: EXAMPLE_ID, description: 'Id of a message, a UUIDv7' });

const timestamp = z.string().meta({ format: 'date-time', example: EXAMPLE_TIME });
const receipt = z.string().meta({ example: EXAMPLE_RECEIPT, description: 'Proves one lease of one delivery; opaque' });
const priority = z
  .int()
  .min(0)
  .max(LIMITS.priorityMax)
  .meta({ description: '9 is the most urgent', example: LIMITS.priorityDefault });
const bodyEncoding = z.enum(['utf8', 'base64']);
const headers = z
  .record(z.string().min(1), z.string())
  .refine(
    (value) => Object.keys(value).length <= LIMITS.headerEntries,
    `must have at most ${LIMITS.headerEntries} entries`,
  )
  .refine((value) => wellFormed(Object.entries(value).flat().join('')), NOT_WELL_FORMED)
  .meta({ example: { 'content-type': 'application/json' }, description: 'At most 16 entries and 1024 bytes as JSON' });

const consumer = z.string().min(1).max(LIMITS.consumerChars).refine(wellFormed, NOT_WELL_FORMED).optional().meta({
  description: 'The name of the consumer, which browse shows; the User-Agent when absent',
  example: 'orders-worker-3',
});
const leaseSeconds = seconds(1, LIMITS.leaseSeconds);
const anyReceipts = z.array(z.string().min(1).max(200)).max(LIMITS.batch);
const receipts = anyReceipts.min(1).meta({ example: [EXAMPLE_RECEIPT] });

export const enqueueMessage = z.strictObject({
  body: z
    .string()
    .refine(wellFormed, NOT_WELL_FORMED)
    .meta({ description: 'At most 4096 bytes after decoding', example: '{"order":17}' }),
  bodyEncoding: bodyEncoding.default('utf8'),
  headers: headers.optional(),
  priority: priority.default(LIMITS.priorityDefault),
  delaySeconds: seconds(0, LIMITS.delaySeconds)
    .optional()
    .meta({ description: "The queue's delaySeconds when absent" }),
  expiresInSeconds: seconds(1, LIMITS.messageTtlSeconds)
    .optional()
    .meta({ description: "Capped by the queue's messageTtlSeconds, which also applies when absent" }),
});

export const enqueueRequest = z.strictObject({ messages: z.array(enqueueMessage).min(1).max(LIMITS.batch) }).meta({
  example: { messages: [{ body: '{"order":17}', headers: { 'content-type': 'application/json' }, priority: 4 }] },
});

export const enqueueAnswer = z.object({ messages: z.array(z.object({ id: messageIdText })) });

export const dequeueRequest = z
  .strictObject({
    maxMessages: z.int().min(1).max(LIMITS.batch).default(1),
    waitSeconds: seconds(0, LIMITS.waitSeconds).default(0),
    leaseSeconds: leaseSeconds.optional().meta({ description: "The queue's leaseSeconds when absent" }),
    consumer,
    ack: anyReceipts.optional().meta({
      description: 'Settles these first, as ack does; a dequeue that waits does not delay them',
      example: [EXAMPLE_RECEIPT],
    }),
    withSettings: z.boolean().optional().meta({
      description: 'true: the answer has settings, by which a consumer times its leases and knows the last attempt',
      example: false,
    }),
  })
  .meta({ example: { maxMessages: 10, waitSeconds: 20, leaseSeconds: 30, ack: [EXAMPLE_RECEIPT] } });

export const leasedMessage = z.object({
  id: messageIdText,
  body: z.string().meta({ example: '{"order":17}' }),
  bodyEncoding: bodyEncoding.meta({ description: 'base64 when the body is not valid UTF-8' }),
  headers: z.record(z.string(), z.string()).meta({ example: { 'content-type': 'application/json' } }),
  priority,
  receipt,
  receiveCount: z.int().meta({ example: 1, description: 'The number of hand-outs, including this one' }),
  enqueuedAt: timestamp,
  expiresAt: timestamp,
  leaseExpiresAt: timestamp,
});

export const ackRequest = z.strictObject({ receipts }).meta({ example: { receipts: [EXAMPLE_RECEIPT] } });
export const failedReceipt = z.object({
  receipt,
  code: z.enum(['lease-lost', 'delivery-not-found', 'invalid-request']),
});
export const ackAnswer = z.object({ acked: z.array(receipt), failed: z.array(failedReceipt) });

export const dequeueAnswer = z.object({
  messages: z.array(leasedMessage),
  acked: z.array(receipt).optional().meta({ description: 'Always present if the request has ack, else absent' }),
  failed: z.array(failedReceipt).optional().meta({ description: 'Always present if the request has ack, else absent' }),
  settings: z
    .object({
      leaseSeconds: leaseSeconds.meta({ description: 'Length of these leases', example: 30 }),
      maxReceives: z.int().nullable().meta({
        description: "The queue's; null also if it has no effect, because the queue has no dead-letter queue",
        example: 5,
      }),
    })
    .optional()
    .meta({ description: 'Always present if the request has withSettings, else absent' }),
});

export const nackRequest = z
  .strictObject({
    receipts,
    delaySeconds: seconds(0, LIMITS.delaySeconds).default(0),
    deadLetter: z.boolean().default(false).meta({
      description:
        "true: moves the message to the queue's dead-letter queue at once, as ready and never received; refused with a delay, and for a queue without a dead-letter queue",
      example: false,
    }),
    reason: z.string().max(LIMITS.reasonChars).refine(wellFormed, NOT_WELL_FORMED).optional().meta({
      description: 'The reason; kept with the delivery and shown by browse',
      example: 'payment gateway is down',
    }),
  })
  .refine(({ deadLetter, delaySeconds }) => !deadLetter || delaySeconds === 0, {
    path: ['delaySeconds'],
    message: 'must be 0 with deadLetter: a dead-lettered message is ready at once',
  })
  .meta({ example: { receipts: [EXAMPLE_RECEIPT], delaySeconds: 60, reason: 'payment gateway is down' } });
export const nackAnswer = z.object({ nacked: z.array(receipt), failed: z.array(failedReceipt) });

export const releaseRequest = z
  .strictObject({
    receipts,
    delaySeconds: seconds(0, LIMITS.delaySeconds).default(0),
    reason: z.string().max(LIMITS.reasonChars).refine(wellFormed, NOT_WELL_FORMED).optional().meta({
      description: 'Replaces the reason of the last nack; absent: that reason stays',
      example: 'the consumer was stopped',
    }),
  })
  .meta({ example: { receipts: [EXAMPLE_RECEIPT], delaySeconds: 0, reason: 'the consumer was stopped' } });
export const releaseAnswer = z.object({ released: z.array(receipt), failed: z.array(failedReceipt) });

export const extendRequest = z
  .strictObject({ receipts, leaseSeconds, consumer })
  .meta({ example: { receipts: [EXAMPLE_RECEIPT], leaseSeconds: 60 } });
export const extendAnswer = z.object({
  extended: z.array(z.object({ receipt, leaseExpiresAt: timestamp })),
  failed: z.array(failedReceipt),
});

export const queueSettings = z.object({
  leaseSeconds: leaseSeconds.meta({ description: 'Lease of a dequeue without leaseSeconds', example: 30 }),
  messageTtlSeconds: seconds(1, LIMITS.messageTtlSeconds).meta({
    description: 'Longest life of a message',
    example: 345_600,
  }),
  delaySeconds: seconds(0, LIMITS.delaySeconds).meta({
    description: 'Delay of a message without delaySeconds',
    example: 0,
  }),
  maxReceives: z.int().min(1).max(LIMITS.maxReceives).nullable().meta({
    description:
      'After this many receives a delivery is dead-lettered and not handed out again; refused without deadLetterQueue',
    example: 5,
  }),
  deadLetterQueue: queueName.nullable().meta({
    description: 'Must exist, and its own dead letters must not come back to this queue',
    example: 'orders-dead',
  }),
  maxDepth: z.int().min(1).max(LIMITS.maxDepth).nullable().meta({
    description: 'An enqueue that would leave more deliveries than this is refused with queue-full',
    example: null,
  }),
});

/** Absent: the default when the queue is created, unchanged when it exists. */
export const putQueueRequest = z
  .strictObject(queueSettings.partial().shape)
  .default({})
  .meta({ example: { ...QUEUE_DEFAULTS, leaseSeconds: 60 } });

export const queueStats = z.object({
  ready: z.int().meta({ example: 12 }),
  delayed: z.int().meta({ example: 0 }),
  leased: z.int().meta({ example: 3 }),
  oldestReadyAgeSeconds: z
    .number()
    .nullable()
    .meta({ description: 'Time since the oldest ready delivery became ready; null if none is ready', example: 1.25 }),
});

export const queueAnswer = queueSettings.extend({
  name: queueName,
  paused: z.boolean(),
  createdAt: timestamp,
  stats: queueStats,
});
export const queuesAnswer = z.object({ queues: z.array(queueAnswer) });

/** The body of a call without settings. A field in it would have no effect, and is refused. */
export const emptyRequest = z.strictObject({}).nullish().meta({ example: {} });

export const purgeAnswer = z.object({
  purged: z.int().meta({ example: 1200 }),
  complete: z.boolean().meta({ description: 'false: the time for one call ran out; call again' }),
});
export const pauseAnswer = z.object({ name: queueName, paused: z.boolean() });

export const redriveRequest = z
  .strictObject({ maxMessages: z.int().min(1).max(1_000_000).optional().meta({ description: 'All when absent' }) })
  .default({})
  .meta({ example: { maxMessages: 1000 } });
export const redriveAnswer = z.object({
  redriven: z.int().meta({ example: 17 }),
  skipped: z
    .int()
    .meta({ description: 'Not moved: they were enqueued here, or their queue no longer exists', example: 0 }),
  complete: z.boolean().meta({ description: 'false: more may be left; call again' }),
});

export const deliveryState = z.enum(['ready', 'delayed', 'leased']);

export const browseQuery = z.strictObject({
  state: deliveryState.default('ready'),
  limit: z.coerce.number().int().min(1).max(LIMITS.page).default(20),
  after: z.string().max(100).optional().meta({ description: 'The nextAfter of the previous page' }),
});

export const browsedDelivery = z.object({
  queue: queueName,
  state: z.enum(['ready', 'delayed', 'leased', 'expired']),
  priority,
  receiveCount: z.int(),
  availableAt: timestamp.meta({
    description: 'The time from which it is available; for a leased delivery, the end of its lease',
  }),
  expiresAt: timestamp,
  lastNackReason: z.string().nullable(),
  leasedAt: timestamp.nullable().optional().meta({
    description:
      'The time since which it is leased, on the clock of the broker that leased it, for leased deliveries; null if that clock was more than an hour ahead',
  }),
  consumer: z.string().nullable().optional().meta({
    description:
      'The consumer that leased it or last extended its lease, for leased deliveries; null if this broker does not remember',
    example: 'orders-worker-3',
  }),
});
const messageContent = z.object({
  id: messageIdText,
  body: z.string().meta({ example: '{"order":17}' }),
  bodyEncoding,
  headers: z.record(z.string(), z.string()),
  enqueuedAt: timestamp,
  expiresAt: timestamp,
});

export const browsedMessage = messageContent.extend(browsedDelivery.omit({ queue: true }).shape);

export const browseAnswer = z.object({
  messages: z.array(browsedMessage),
  nextAfter: z
    .string()
    .nullable()
    .meta({ description: 'Send it as after to get the next page; null on the last page' }),
});

export const messageAnswer = messageContent.extend({
  queue: queueName
    .nullable()
    .meta({ description: 'The queue to which it was enqueued; null if that queue was deleted' }),
  settled: z.boolean().meta({ description: 'true: no delivery is left (acked, expired or purged)' }),
  deliveries: z.array(browsedDelivery),
});

export const reaperRun = z.object({
  startedAt: timestamp,
  reaper: z.string().meta({ example: 'host-1:4711:a1b2c3' }),
  durationMs: z.int().meta({ example: 12 }),
  count: z.int().meta({ example: 1500 }),
  error: z.string().nullable(),
});
export const reaperAnswer = z.object({
  leader: z
    .object({ reaper: z.string(), leaseExpiresAt: timestamp })
    .nullable()
    .meta({ description: 'null: no reaper is active' }),
  duties: z.array(z.object({ duty: z.string().meta({ example: 'expire-deliveries' }), runs: z.array(reaperRun) })),
});

/** A broker's answer at `/`. */
export const rootAnswer = z.object({
  name: z.literal('RowMQ'),
  version: z.string().meta({ example: '0.1.0', description: "The broker's version" }),
  links: z.record(z.string(), z.string()).meta({ example: { docs: '/docs' }, description: 'Paths by what they show' }),
});

export const problem = z.object({
  type: z.string().meta({ example: 'urn:rowmq:problem:queue-not-found' }),
  title: z.string().meta({ example: 'There is no such queue' }),
  status: z.int().meta({ example: 404 }),
  detail: z.string().meta({ example: "Queue 'orders' does not exist; create it with PUT /v1/admin/queues/orders." }),
  code: z.enum(ERROR_CODES),
  faults: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
});

export type EnqueueMessage = z.output<typeof enqueueMessage>;
export type EnqueueRequest = z.input<typeof enqueueRequest>;
export type EnqueueAnswer = z.output<typeof enqueueAnswer>;
export type DequeueRequest = z.input<typeof dequeueRequest>;
export type LeasedMessage = z.output<typeof leasedMessage>;
export type DequeueAnswer = z.output<typeof dequeueAnswer>;
export type AckRequest = z.input<typeof ackRequest>;
export type AckAnswer = z.output<typeof ackAnswer>;
export type NackRequest = z.input<typeof nackRequest>;
export type NackAnswer = z.output<typeof nackAnswer>;
export type ReleaseRequest = z.input<typeof releaseRequest>;
export type ReleaseAnswer = z.output<typeof releaseAnswer>;
export type ExtendRequest = z.input<typeof extendRequest>;
export type ExtendAnswer = z.output<typeof extendAnswer>;
export type FailedReceipt = z.output<typeof failedReceipt>;
export type QueueSettings = z.output<typeof queueSettings>;
export type PutQueueRequest = z.output<typeof putQueueRequest>;
export type QueueStats = z.output<typeof queueStats>;
export type QueueAnswer = z.output<typeof queueAnswer>;
export type QueuesAnswer = z.output<typeof queuesAnswer>;
export type PurgeAnswer = z.output<typeof purgeAnswer>;
export type PauseAnswer = z.output<typeof pauseAnswer>;
export type RedriveRequest = z.output<typeof redriveRequest>;
export type RedriveAnswer = z.output<typeof redriveAnswer>;
export type DeliveryState = z.output<typeof deliveryState>;
export type BrowseQuery = z.output<typeof browseQuery>;
export type BrowseAnswer = z.output<typeof browseAnswer>;
export type MessageAnswer = z.output<typeof messageAnswer>;
export type ReaperAnswer = z.output<typeof reaperAnswer>;
export type RootAnswer = z.output<typeof rootAnswer>;
export type Problem = z.output<typeof problem>;
