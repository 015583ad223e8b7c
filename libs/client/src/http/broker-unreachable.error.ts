import { RowmqError } from '@rowmq/contract';

/**
 * A call got no answer that a RowMQ broker could have given: nobody listens, the connection broke, the deadline passed, or something else
 * answered in its place. `outcome` says what is known about the call's effect.
 */
export class BrokerUnreachableError extends Error {
  override readonly name = 'BrokerUnreachableError';

  constructor(
    message: string,
    /** The broker's base URL. */
    readonly url: string,
    /** `not-sent`: the broker never saw the call, nothing happened. `unknown`: it may have been carried out in full. */
    readonly outcome: 'not-sent' | 'unknown',
    options: ErrorOptions = {},
  ) {
    super(message, options);
  }
}

/** Whether a failure says nothing of the call but something of the broker, or of its database, at this moment: later, or on another broker, the same call may succeed. */
export function mayPass(error: unknown): error is BrokerUnreachableError | RowmqError {
  if (error instanceof BrokerUnreachableError) return true;
  return error instanceof RowmqError && (error.code === 'overloaded' || error.code === 'database-unavailable');
}
