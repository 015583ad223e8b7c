import { type ErrorCode, RowmqError } from '@rowmq/contract';

/**
 * A call got no answer from a RowMQ broker. Nobody listens, the connection broke, the deadline
 * passed, or something else answered. `outcome` says what is known of the call's effect.
 */
export class BrokerUnreachableError extends Error {
  override readonly name = 'BrokerUnreachableError';

  constructor(
    message: string,
    /** The broker's base URL. */
    readonly url: string,
    /**
     * `not-sent`: the broker never saw the call, and nothing happened. `unknown`: the broker may
     * have carried it out in full.
     */
    readonly outcome: 'not-sent' | 'unknown',
    options: ErrorOptions = {},
  ) {
    super(message, options);
  }
}

/**
 * Whether a failure concerns the broker or its database at this moment, and not the call. The same
 * call may succeed later, or on another broker.
 */
export function mayPass(error: unknown): error is BrokerUnreachableError | RowmqError {
  if (error instanceof BrokerUnreachableError) return true;
  return error instanceof RowmqError && PASSING.has(error.code);
}

/**
 * Whether the broker may have carried out a call although the call failed. After an enqueue it
 * means that a second enqueue may double the message. If false, nothing was stored or changed.
 *
 * It judges the errors of this client. If the caller's own signal cancelled a call, its outcome is
 * unknown too, and the error is the signal's reason.
 */
export function isOutcomeUnknown(error: unknown): error is BrokerUnreachableError | RowmqError {
  if (error instanceof BrokerUnreachableError) return error.outcome === 'unknown';
  return error instanceof RowmqError && IN_DOUBT.has(error.code);
}

const PASSING = new Set<ErrorCode>([
  'enqueue-in-progress',
  'rate-limited',
  'queue-locked',
  'overloaded',
  'database-unavailable',
]);
const IN_DOUBT = new Set<ErrorCode>(['database-unavailable', 'internal-error']);

/** The time that the broker asked for. */
export function retryAfterMs(error: unknown): number {
  return error instanceof RowmqError ? (error.retryAfterSeconds ?? 0) * 1000 : 0;
}
