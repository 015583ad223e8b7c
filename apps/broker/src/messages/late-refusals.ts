import type { FastifyAdapter } from '@nestjs/platform-fastify';
import type { ErrorCode } from '@rowmq/contract';
import type { CheckedRequest } from '../http/caller.js';
import { addressOf } from '../http/client-address.js';
import type { ProblemRequest } from '../http/problem.filter.js';
import { Rates } from './rates.js';

/** A caller gets so many refusals a second at once. Later ones wait for their turn. */
const PER_SECOND = 100;
/** No refusal waits longer. Every `Retry-After` is at least as long. */
const LONGEST_MS = 1000;
/** Refusals that wait at a time. Further ones are answered at once. */
const MOST_WAITING = 1000;
/** Refusals whose client may try again, and is refused again until something has changed. */
const TEMPORARY: ReadonlySet<ErrorCode> = new Set([
  'rate-limited',
  'queue-full',
  'queue-paused',
  'too-many-attempts',
  'overloaded',
  'database-unavailable',
]);

/**
 * Delays the refusals of a caller who gets many, so that he cannot keep the broker busy with them.
 * Over 500 connections, a client that ignores `Retry-After` was refused 5,000 times a second, and
 * everybody else waited for that. Answered late, the same connections ask 500 times a second.
 * Kafka slows clients beyond their quota down in this way, too.
 */
export class LateRefusals {
  private readonly rates = new Rates();
  private count = 0;

  /** Refusals that wait. */
  get waiting(): number {
    return this.count;
  }

  /** The ms for which the next refusal of a caller waits. */
  delayMs(caller: string, now = performance.now()): number {
    const ms = this.rates.waitMs(caller, now);
    if (ms >= LONGEST_MS) return LONGEST_MS;
    this.rates.use(caller, 1, PER_SECOND, now);
    return ms;
  }

  /** Sends a refusal when it is the caller's turn. */
  send(caller: string, refusal: () => void): void {
    const ms = this.delayMs(caller);
    if (ms === 0 || this.count >= MOST_WAITING) {
      refusal();
      return;
    }
    this.count += 1;
    setTimeout(() => {
      this.count -= 1;
      refusal();
    }, ms);
  }
}

/** Delays refusals of all calls. */
export function delayRefusals(adapter: FastifyAdapter): void {
  const late = new LateRefusals();
  adapter.getInstance().addHook('onSend', (request, _reply, _payload, done) => {
    const { problem, caller } = request as unknown as ProblemRequest & Partial<CheckedRequest>;
    if (problem === null || !TEMPORARY.has(problem)) done();
    else late.send(caller?.name ?? addressOf(request), done);
  });
}
