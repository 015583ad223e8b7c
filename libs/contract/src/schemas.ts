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
    /^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$/,
    'must be a message id, a UUIDv7 such as enqueue answers',
  )
  .meta({ example: EXAMPLE_ID, description: 'Id of a message, a UUIDv7' });

/** A time in a request. */
export const instant = z.iso.datetime({
  offset: true,
  error: 'must be a time in ISO 8601 with a time zone, such as 2026-11-22T18:38:26.123Z',
});
export const timestamp = z.string().meta({ format: 'date-time', example: EXAMPLE_TIME });
const receipt = z.string().meta({ example: EXAMPLE_RECEIPT, description: 'Proves one lease of one delivery; opaque' });
export const priority = z
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
const groupId = z.string().min(1).max(LIMITS.groupIdChars).refine(wellFormed, NOT_WELL_FORMED).meta({
  description: 'The group of the message, such as a customer',
  example: 'customer-42',
});
const leaseSeconds = seconds(1, LIMITS.leaseSeconds);
const anyReceipts = z.array(z.string().min(1).max(200)).max(LIMITS.batch);
const receipts = anyReceipts.min(1).meta({ example: [EXAMPLE_RECEIPT] });

/** The fields of a message that is enqueued. */
export const messageFields = z.strictObject({
  body: z
    .string()
    .refine(wellFormed, NOT_WELL_FORMED)
    .meta({
      description: `At most ${LIMITS.bodyBytesDefault} bytes after decoding, or as many as the broker's limits.bodyBytes says, at \`/\``,
      example: '{"order":17}',
    }),
  bodyEncoding: bodyEncoding.default('utf8'),
  headers: headers.optional(),
  priority: priority.default(LIMITS.priorityDefault),
  delaySeconds: seconds(0, LIMITS.aheadSeconds)
    .optional()
    .meta({ description: "The queue's delaySeconds when absent" }),
  availableAt: instant.optional().meta({
    description:
      'In place of delaySeconds: the time from which the message is available, at most 366 days ahead; a past time means now',
    example: EXAMPLE_TIME,
  }),
  expiresInSeconds: seconds(1, LIMITS.expiresInSeconds).optional().meta({
    description:
      "Counts from the enqueue. The queue's messageTtlSeconds, which counts from when the message is available, caps it and applies when absent",
  }),
  deduplicationId: z
    .string()
    .min(1)
    .max(LIMITS.deduplicationIdChars)
    .refine(wellFormed, NOT_WELL_FORMED)
    .optional()
    .meta({
      description:
        "A further message with this id is not stored within the queue's deduplicationSeconds; it is answered with the id of the first",
      example: 'order-17-paid',
    }),
  groupId: groupId.optional().meta({
    description:
      'Required in a queue with ordering "group", which hands out the messages of a group in order. In others, a group that floods the queue does not make the others wait',
    example: 'customer-42',
  }),
});

const hasOneTime = ({ delaySeconds, availableAt }: Partial<z.output<typeof messageFields>>): boolean =>
  delaySeconds === undefined || availableAt === undefined;
const ONE_TIME = {
  path: ['availableAt'],
  message: 'must be absent with delaySeconds: both say when the message is available',
};

export const enqueueMessage = messageFields.refine(hasOneTime, ONE_TIME);
/** The same fields mean other things in a topic. */
export const publishMessage = messageFields
  .extend({
    deduplicationId: messageFields.shape.deduplicationId.meta({
      description:
        "A further message with this id is not stored within the topic's deduplicationSeconds; it is answered with the id of the first",
      example: 'order-17-paid',
    }),
    groupId: messageFields.shape.groupId.meta({
      description: 'Required if a queue with ordering "group" wants the message, and then keeps its order',
      example: 'customer-42',
    }),
  })
  .refine(hasOneTime, ONE_TIME);

const KEY_FAULT = `must be 1 to ${LIMITS.idempotencyKeyChars} visible ASCII characters, without a quote, comma or backslash`;

/**
 * The header `Idempotency-Key`. The IETF draft writes it as a quoted string, and many clients omit
 * the quotes, so both forms are one key. Two such headers arrive as one with a comma, which is
 * refused.
 */
export const idempotencyKey = z
  .string()
  .transform((text) => /^"(.*)"$/.exec(text)?.[1] ?? text)
  .pipe(
    z
      .string()
      .max(LIMITS.idempotencyKeyChars, KEY_FAULT)
      .regex(/^[!#-+\--[\]-~]+$/, KEY_FAULT),
  )
  .optional();

export const enqueueRequest = z.strictObject({ messages: z.array(enqueueMessage).min(1).max(LIMITS.batch) }).meta({
  example: { messages: [{ body: '{"order":17}', headers: { 'content-type': 'application/json' }, priority: 4 }] },
});

export const enqueueAnswer = z.object({
  messages: z.array(
    z.object({
      id: messageIdText,
      duplicate: z.literal(true).optional().meta({
        description: 'true: nothing was stored, and this is the id of the first message with that deduplicationId',
      }),
    }),
  ),
});

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

const replayOf = messageIdText.optional().meta({
  description: 'For a replayed message: the id of the message that its producer sent',
  example: EXAMPLE_ID,
});

export const leasedMessage = z.object({
  id: messageIdText,
  body: z.string().meta({ example: '{"order":17}' }),
  bodyEncoding: bodyEncoding.meta({ description: 'base64 when the body is not valid UTF-8' }),
  headers: z.record(z.string(), z.string()).meta({ example: { 'content-type': 'application/json' } }),
  priority,
  groupId: groupId.optional().meta({ description: "The producer's, if it gave one", example: 'customer-42' }),
  receipt,
  receiveCount: z.int().meta({ example: 1, description: 'The number of hand-outs, including this one' }),
  enqueuedAt: timestamp,
  expiresAt: timestamp,
  leaseExpiresAt: timestamp,
  replayOf,
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
      ordering: z.literal(['group', null]).meta({
        description: 'group: handle the messages of a group one after the other',
        example: null,
      }),
    })
    .optional()
    .meta({ description: 'Always present if the request has withSettings, else absent' }),
  waitedMs: z.int().optional().meta({
    description:
      'The time that the request waited before these leases can have begun; present if the request has withSettings, else absent',
    example: 1250,
  }),
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
    description: 'Longest life of a message, counted from when it is available',
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
  deadLetterExpired: z.boolean().meta({
    description:
      'true: messages that expire go to the dead-letter queue, where its messageTtlSeconds counts from the move; refused without deadLetterQueue',
    example: false,
  }),
  maxDepth: z.int().min(1).max(LIMITS.maxDepth).nullable().meta({
    description: 'An enqueue that would leave more deliveries than this is refused with queue-full',
    example: null,
  }),
  maxMessagesPerSecond: z.int().min(1).max(LIMITS.maxMessagesPerSecond).nullable().meta({
    description: 'Messages a second that each broker accepts for the queue; beyond it: rate-limited',
    example: null,
  }),
  maxLongPolls: z.int().min(1).max(LIMITS.maxLongPolls).nullable().meta({
    description: 'Dequeues of the queue that may wait on each broker; beyond it: rate-limited',
    example: null,
  }),
  deduplicationSeconds: seconds(1, LIMITS.deduplicationSeconds).meta({
    description: 'For this long the queue remembers a deduplicationId; an Idempotency-Key for at least 300 seconds',
    example: 300,
  }),
  ordering: z.literal(['group', null]).meta({
    description:
      'group: messages of one groupId are handed out in the order of their commits, one dequeue at a time. Cannot change after the creation of the queue',
    example: null,
  }),
});

/** Absent: the default when the queue is created, unchanged when it exists. */
export const putQueueRequest = z
  .strictObject(queueSettings.partial().shape)
  .default({})
  .meta({ example: { ...QUEUE_DEFAULTS, leaseSeconds: 60 } });

/** A PUT of a queue with this in `If-None-Match` only creates. Queues have no entity tags. */
export const onlyIfAbsent = z
  .literal('*', "If-None-Match must be '*', which creates the queue only if it does not exist")
  .optional();

export const queueStats = z.object({
  ready: z.int().meta({ example: 12 }),
  delayed: z.int().meta({ example: 0 }),
  leased: z.int().meta({ example: 3 }),
  waiting: z.int().meta({
    description: 'Messages of a queue with ordering "group" that come behind others of their group',
    example: 0,
  }),
  oldestReadyAgeSeconds: z
    .number()
    .nullable()
    .meta({ description: 'Time since the oldest ready delivery became ready; null if none is ready', example: 1.25 }),
  ageSeconds: z
    .number()
    .meta({ description: 'The counts are exact for a moment that lies this far back; 0: they are fresh', example: 0 }),
  errorBound: z.int().meta({
    description:
      'The most by which each count can be wrong now: messages that brokers and reapers have reported since to have come, gone or changed. They report every ten seconds',
    example: 0,
  }),
});

export const queueRates = z
  .array(
    z.object({
      minutes: z.literal([1, 5, 60]),
      in: z.number().meta({ description: 'Enqueued' }),
      out: z.number().meta({ description: 'Acked' }),
      failed: z.number().meta({ description: 'Nacked or dead-lettered' }),
      expired: z.number(),
    }),
  )
  .meta({
    description: 'Messages a second over the last 1, 5 and 60 minutes, of all brokers and reapers',
    example: [
      { minutes: 1, in: 12.5, out: 12.1, failed: 0.1, expired: 0 },
      { minutes: 5, in: 11.9, out: 11.9, failed: 0, expired: 0 },
      { minutes: 60, in: 4.2, out: 4.2, failed: 0, expired: 0 },
    ],
  });

export const queueAnswer = queueSettings.extend({
  name: queueName,
  paused: z.boolean().meta({ description: 'true: consumers get nothing' }),
  producersPaused: z.boolean().meta({ description: 'true: enqueue is refused with queue-paused' }),
  createdAt: timestamp,
  stats: queueStats,
  rates: queueRates,
});
export const queuesAnswer = z.object({ queues: z.array(queueAnswer) });

/** The body of a call without settings. A field in it would have no effect, and is refused. */
export const emptyRequest = z.strictObject({}).nullish().meta({ example: {} });

export const replayRequest = z
  .strictObject({
    from: instant.meta({
      description: 'Replays messages that were enqueued at this time or later',
      example: EXAMPLE_TIME,
    }),
    to: instant.meta({ description: 'and before this time', example: '2026-11-22T19:00:00.000Z' }),
    toQueue: queueName
      .optional()
      .meta({ description: 'The queue that gets the replayed messages; this one when absent' }),
    messagesPerSecond: z
      .int()
      .min(LIMITS.replayRate.min)
      .max(LIMITS.replayRate.max)
      .default(LIMITS.replayRate.default)
      .meta({ description: 'The most messages that this call replays a second' }),
    cursor: messageIdText.optional().meta({ description: 'The cursor of the last answer: goes on where it stopped' }),
  })
  .refine(({ from, to }) => Date.parse(from) < Date.parse(to), { path: ['to'], message: 'must be later than from' })
  .meta({ example: { from: EXAMPLE_TIME, to: '2026-11-22T19:00:00.000Z', messagesPerSecond: 500 } });
export const replayAnswer = z.object({
  replayed: z.int().meta({ example: 4990, description: 'Messages that this call stored' }),
  owed: z.int().meta({ example: 12, description: 'Messages that were left out, because a queue still owes them' }),
  complete: z.boolean().meta({ description: 'false: more may be left; call again with the cursor' }),
  cursor: messageIdText
    .nullable()
    .meta({ description: 'Send it as cursor with the same from and to; null at the end' }),
});

export const messageContent = z.object({
  id: messageIdText,
  body: z.string().meta({ example: '{"order":17}' }),
  bodyEncoding,
  headers: z.record(z.string(), z.string()),
  groupId: groupId.optional().meta({ description: "The producer's, if it gave one", example: 'customer-42' }),
  enqueuedAt: timestamp,
  expiresAt: timestamp,
  replayOf,
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
  limits: z.object({
    bodyBytes: z.int().meta({
      example: LIMITS.bodyBytesDefault,
      description: 'Largest body after decoding: ROWMQ_MAX_BODY_BYTES of this broker',
    }),
    headersBytes: z.int().meta({ example: LIMITS.headersBytes, description: 'Largest headers of a message, as JSON' }),
    requestBytes: z.int().meta({ example: 4_194_304, description: 'Largest request' }),
    answerBytes: z.int().meta({
      example: LIMITS.answerBytes,
      description:
        'Bodies and headers of one answer: a dequeue leases fewer messages than asked before it exceeds this',
    }),
  }),
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
export type PublishMessage = z.output<typeof publishMessage>;
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
export type QueueRates = z.output<typeof queueRates>;
export type QueueAnswer = z.output<typeof queueAnswer>;
export type QueuesAnswer = z.output<typeof queuesAnswer>;
export type ReplayRequest = z.input<typeof replayRequest>;
export type ReplayAnswer = z.output<typeof replayAnswer>;
export type ReaperAnswer = z.output<typeof reaperAnswer>;
export type RootAnswer = z.output<typeof rootAnswer>;
export type Problem = z.output<typeof problem>;
