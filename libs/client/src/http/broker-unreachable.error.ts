import { RowmqError } from '@rowmq/contract';

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
  return error instanceof RowmqError && (error.code === 'overloaded' || error.code === 'database-unavailable');
}

/** The time that the broker asked for. */
export function retryAfterMs(error: unknown): number {
  return error instanceof RowmqError ? (error.retryAfterSeconds ?? 0) * 1000 : 0;
}
