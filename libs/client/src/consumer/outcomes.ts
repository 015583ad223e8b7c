/**
 * A handler throws it for a message that will never succeed. The message goes to the queue's
 * dead-letter queue at once. Without a dead-letter queue it comes again, like any other failed
 * message.
 */
export class Reject extends Error {
  override readonly name = 'Reject';
}

/** A handler throws it to get the message again after a delay of its own. */
export class Retry extends Error {
  override readonly name = 'Retry';

  private constructor(
    readonly delayMs: number,
    /** False: the message was put off, and this receive does not count. */
    readonly usesAttempt: boolean,
    reason: string,
  ) {
    super(reason);
  }

  /**
   * This attempt failed. It counts towards the queue's `maxReceives`.
   * @param ms the delay, rounded up to whole seconds, 12 hours at most
   * @param reason kept with the delivery, and shown by browse
   * @throws RangeError unless `ms` is a number from 0 on
   */
  static after(ms: number, reason?: string): Retry {
    assertDelay('Retry.after', ms);
    return new Retry(ms, true, reason ?? `to be retried in ${ms} ms, which uses up an attempt`);
  }

  /**
   * Puts the message off. No attempt is used up: the message is as if it had not been received. A
   * message that is always put off is never dead-lettered, and expires in the end.
   * @param ms the delay, rounded up to whole seconds, 12 hours at most
   * @param reason kept with the delivery, and shown by browse
   * @throws RangeError unless `ms` is a number from 0 on
   */
  static later(ms: number, reason?: string): Retry {
    assertDelay('Retry.later', ms);
    return new Retry(ms, false, reason ?? `put off for ${ms} ms, which uses up no attempt`);
  }
}

function assertDelay(name: string, ms: number): void {
  if (typeof ms !== 'number' || !(ms >= 0)) {
    throw new RangeError(`${name} takes milliseconds from 0 on, not ${String(ms)}.`);
  }
}

/**
 * A message's lease ended, or was lost, while its handler worked: another consumer has it, or will.
 * It is the reason of the handler's `AbortSignal`.
 */
export class LeaseLostError extends Error {
  override readonly name = 'LeaseLostError';

  constructor(readonly messageId: string) {
    super(`The lease of message ${messageId} is no longer held: it has been or will be handed out again.`);
  }
}

/**
 * A handler took longer than `handlerTimeoutSeconds`, and the consumer nacked its message. It is
 * the reason of the handler's `AbortSignal`, and the error in `handlerFailed`.
 */
export class HandlerTimeoutError extends Error {
  override readonly name = 'HandlerTimeoutError';

  constructor(readonly seconds: number) {
    super(
      `The handler did not finish within ${seconds} s (handlerTimeoutSeconds); give its calls a deadline, or pass them message.signal.`,
    );
  }
}

/**
 * The consumer was stopped, a handler missed the deadline, and the consumer nacked its message. It
 * is the reason of the handler's `AbortSignal`. `settleFailed` has it if the broker did not answer
 * in time either.
 */
export class ConsumerStoppedError extends Error {
  override readonly name = 'ConsumerStoppedError';
}

/**
 * Returns the delay of a failed message in milliseconds.
 * @param attempt 1 for the first
 */
export type Backoff = (attempt: number, error: unknown) => number;

const FIRST_DELAY_MS = 1000;
const LONGEST_DELAY_MS = 15 * 60_000;

/** The delay doubles each time, up to a quarter of an hour. Jitter takes up to half of it away. */
export const exponentialBackoff: Backoff = (attempt) => {
  const delay = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.max(0, attempt - 1));
  return delay * (0.5 + Math.random() / 2);
};
