/**
 * Every limit of the REST contract. Schemas, OpenAPI, the store's column sizes and the docs follow
 * it. Sizes are bytes after decoding, and times are seconds.
 */
export const LIMITS = {
  /** Messages in one enqueue, and deliveries in one dequeue, ack, nack or extend. */
  batch: 100,
  bodyBytes: 4096,
  headerEntries: 16,
  /** Size of all headers of one message together, as JSON. */
  headersBytes: 1024,
  priorityMax: 9,
  priorityDefault: 4,
  delaySeconds: 43_200,
  waitSeconds: 20,
  leaseSeconds: 43_200,
  messageTtlSeconds: 1_209_600,
  maxReceives: 1000,
  maxDepth: 1_000_000_000,
  reasonChars: 200,
  /** The name of a consumer. */
  consumerChars: 128,
  /**
   * After this time a purge, redrive or delete finishes its current batch, and answers that it is
   * not complete.
   */
  sweepSeconds: 10,
  /** Rows on one page of a browse. */
  page: 100,
  /**
   * A whole request as JSON: 100 messages of 4 KiB with their headers, each byte written as a
   * six-character escape.
   */
  requestBytes: 4 * 1024 * 1024,
} as const;

/** The settings of a new queue that its creator leaves out. */
export const QUEUE_DEFAULTS = {
  leaseSeconds: 30,
  messageTtlSeconds: 345_600,
  delaySeconds: 0,
  maxReceives: null,
  deadLetterQueue: null,
  maxDepth: null,
} as const;

/**
 * A delivery can be claimed again this long after its lease has ended. An ack, nack or extend that
 * begins under the lease has this time to finish before a claim can want the same delivery. It
 * locks the row before the index entry, and a claim the entry before the row. On MariaDB the two
 * would deadlock, because SKIP LOCKED waits for an instant there; on MySQL only the ack would wait.
 */
export const LEASE_GRACE_MS = 250;
