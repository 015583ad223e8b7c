/**
 * The error codes of the REST contract. Codes are stable, and clients decide by them. Titles and
 * details are for people.
 */
export const ERROR_CODES = [
  'invalid-request',
  'unauthorized',
  'forbidden',
  'too-many-attempts',
  'key-not-found',
  'key-exists',
  'queue-not-found',
  'queue-exists',
  'schedule-not-found',
  'topic-not-found',
  'subscription-not-found',
  'job-not-found',
  'delivery-not-found',
  'lease-lost',
  'message-leased',
  'enqueue-in-progress',
  'message-too-large',
  'idempotency-key-reused',
  'queue-full',
  'rate-limited',
  'queue-paused',
  'queue-not-empty',
  'queue-locked',
  'overloaded',
  'database-unavailable',
  'internal-error',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** The codes with which a single receipt of a batch can fail while the others succeed. */
export type ReceiptErrorCode = Extract<ErrorCode, 'lease-lost' | 'delivery-not-found' | 'invalid-request'>;

/**
 * The one error family of RowMQ. The store and the broker throw it, the broker sends it as
 * problem+json, and the client rebuilds it from that.
 *
 * `message` is for people and says what to do. `retryAfterSeconds` is set if a later try can help.
 */
export class RowmqError extends Error {
  override readonly name = 'RowmqError';

  constructor(
    readonly code: ErrorCode,
    message: string,
    options: { cause?: unknown; retryAfterSeconds?: number; faults?: readonly Fault[] } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.retryAfterSeconds = options.retryAfterSeconds;
    this.faults = options.faults;
  }

  readonly retryAfterSeconds: number | undefined;
  /** For `invalid-request`: each invalid field. */
  readonly faults: readonly Fault[] | undefined;
}

/** One invalid field of a request: its path (`messages.0.priority`) and what is wrong with it. */
export interface Fault {
  path: string;
  message: string;
}

/** The codes' statuses and titles in RFC 9457 problem details. */
export const PROBLEMS: Record<ErrorCode, { status: number; title: string }> = {
  'invalid-request': { status: 400, title: 'The request is not valid' },
  unauthorized: { status: 401, title: 'An API key is needed' },
  forbidden: { status: 403, title: 'This is not allowed' },
  'too-many-attempts': { status: 429, title: 'Too many calls without a valid API key' },
  'key-not-found': { status: 404, title: 'There is no such API key' },
  'key-exists': { status: 409, title: 'The API key exists already' },
  'queue-not-found': { status: 404, title: 'There is no such queue' },
  'queue-exists': { status: 412, title: 'The queue exists already' },
  'schedule-not-found': { status: 404, title: 'There is no such schedule' },
  'topic-not-found': { status: 404, title: 'There is no such topic' },
  'subscription-not-found': { status: 404, title: 'There is no such subscription' },
  'job-not-found': { status: 404, title: 'There is no such job' },
  'delivery-not-found': { status: 404, title: 'There is no such delivery' },
  'lease-lost': { status: 409, title: 'The lease is no longer held' },
  'message-leased': { status: 409, title: 'A consumer holds the message' },
  'enqueue-in-progress': { status: 409, title: 'The first enqueue of this is still in progress' },
  'message-too-large': { status: 413, title: 'The message is too large' },
  'idempotency-key-reused': { status: 422, title: 'The Idempotency-Key belongs to another request' },
  'queue-full': { status: 429, title: 'The queue is full' },
  'rate-limited': { status: 429, title: 'A limit of the queue or the key is reached' },
  'queue-paused': { status: 409, title: 'The queue is paused for producers' },
  'queue-not-empty': { status: 409, title: 'The queue has messages' },
  'queue-locked': { status: 503, title: 'Another transaction keeps the queue locked' },
  overloaded: { status: 503, title: 'The broker is overloaded' },
  'database-unavailable': { status: 503, title: 'The database is not available' },
  'internal-error': { status: 500, title: 'The broker failed' },
};
