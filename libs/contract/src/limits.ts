/**
 * Every limit of the REST contract, in one place: schemas, OpenAPI, the store's column sizes and the docs follow these.
 * Sizes are bytes after decoding, times are seconds.
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
  /** A purge, redrive or delete that is not complete by then is answered as soon as its current batch is done. */
  sweepSeconds: 10,
  /** Rows on one page of a browse. */
  page: 100,
  /** A whole request as JSON: 100 messages of 4 KiB, each byte written as a six-character JSON escape, and their headers. */
  requestBytes: 4 * 1024 * 1024,
} as const;

/** What a queue is given for a setting that its creator leaves out. */
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
