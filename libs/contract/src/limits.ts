/**
 * Every limit of the REST contract. Schemas, OpenAPI, the store's column sizes and the docs follow
 * it. Sizes are bytes after decoding, and times are seconds.
 */
export const LIMITS = {
  /** Messages in one enqueue, and deliveries in one dequeue, ack, nack or extend. */
  batch: 100,
  /** The limit of a body unless `ROWMQ_MAX_BODY_BYTES` sets another one, see {@link sizeLimits}. */
  bodyBytesDefault: 4096,
  /** The highest limit of a body that can be set. */
  bodyBytesMost: 262_144,
  headerEntries: 16,
  /** Size of all headers of one message together, as JSON. */
  headersBytes: 1024,
  priorityMax: 9,
  priorityDefault: 4,
  /** The delay of a queue, a nack or a release. */
  delaySeconds: 43_200,
  /** A message becomes available at most this long after its enqueue: 366 days. */
  aheadSeconds: 31_622_400,
  waitSeconds: 20,
  leaseSeconds: 43_200,
  messageTtlSeconds: 1_209_600,
  /** The expiry that a producer may give: the longest delay and the longest TTL after it. */
  expiresInSeconds: 31_622_400 + 1_209_600,
  deduplicationIdChars: 128,
  deduplicationSeconds: 86_400,
  idempotencyKeyChars: 128,
  maxReceives: 1000,
  maxDepth: 1_000_000_000,
  maxMessagesPerSecond: 1_000_000,
  maxLongPolls: 100_000,
  reasonChars: 200,
  cronChars: 200,
  timeZoneChars: 64,
  /** The name of a group of messages. */
  groupIdChars: 128,
  /** The name of a consumer. */
  consumerChars: 128,
  /**
   * After this time a replay finishes its current batch, and answers that it is not complete. A
   * deletion of a queue leaves the rest to the reaper.
   */
  sweepSeconds: 10,
  /** Messages a second of a replay. */
  replayRate: { min: 10, max: 100_000, default: 500 },
  /** Messages a second of a job. */
  jobRate: { min: 1, max: 100_000, default: 1000 },
  /** Jobs that are not finished, of all queues together. */
  openJobs: 100,
  /** A text that a filter of messages looks for. */
  searchChars: 200,
  /** Subscriptions of one topic. A message has a row in the database for each that it matches. */
  subscriptions: 200,
  /** Headers in the filter of a subscription. */
  filterHeaders: 5,
  /** Conditions on all headers of a filter together. */
  filterConditions: 150,
  /** A filter as JSON. */
  filterBytes: 4096,
  /** API keys in all. Every broker reads all of them once a second. */
  keys: 1000,
  /** Patterns of one key. */
  keyPatterns: 50,
  /** After a rotation, a key's old secret stays valid for at most this long. */
  rotationSeconds: 2_592_000,
  rotationSecondsDefault: 86_400,
  /** The history of a queue goes back this far: a day. */
  historyMinutes: 1440,
  /** Leased messages of a queue that are shared out among its consumers. */
  consumerLeases: 10_000,
  /** Rows on one page of a browse. */
  page: 100,
  /**
   * Bodies and headers of one dequeue's answer, and of one page of a browse. Larger messages make
   * an answer of fewer messages; 100 of up to 36 KiB always fit.
   */
  answerBytes: 4 * 1024 * 1024,
} as const;

/**
 * A queue remembers each Idempotency-Key for its `deduplicationSeconds`, but at least for this
 * long. A client that repeats an enqueue for a shorter time therefore never stores it twice.
 */
export const IDEMPOTENCY_SECONDS = 300;

/** The settings of a new queue that its creator leaves out. */
export const QUEUE_DEFAULTS = {
  leaseSeconds: 30,
  messageTtlSeconds: 345_600,
  delaySeconds: 0,
  maxReceives: null,
  deadLetterQueue: null,
  deadLetterExpired: false,
  maxDepth: null,
  maxMessagesPerSecond: null,
  maxLongPolls: null,
  deduplicationSeconds: 300,
  ordering: null,
} as const;

/** The settings of a new topic that its creator leaves out. */
export const TOPIC_DEFAULTS = { deduplicationSeconds: 300 } as const;

/**
 * A delivery can be claimed again this long after its lease has ended. An ack, nack or extend that
 * begins under the lease has this time to finish before a claim can want the same delivery. It
 * locks the row before the index entry, and a claim the entry before the row. On MariaDB the two
 * would deadlock, because SKIP LOCKED waits for an instant there; on MySQL only the ack would wait.
 */
export const LEASE_GRACE_MS = 250;
