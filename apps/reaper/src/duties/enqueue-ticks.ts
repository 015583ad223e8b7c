import { Injectable } from '@nestjs/common';
import { TickRepository } from '@rowmq/store';
import type { Round } from './duty.js';

/** A run ends after this long. The next one follows at once. */
const RUN_MS = 5000;

/**
 * Enqueues the messages of schedules whose tick has come. It is no part of a round: a round takes
 * seconds, and a tick must be punctual. Every reaper runs it, whoever holds the lease, because the
 * schedule's row decides who enqueues a tick. So a failover delays no tick.
 */
@Injectable()
export class EnqueueTicks {
  readonly name = 'enqueue-ticks';

  constructor(private readonly ticks: TickRepository) {}

  /** Returns the number of messages, and the time until the next tick, a second at most. */
  async run({ signal }: Round): Promise<{ count: number; waitMs: number }> {
    const until = performance.now() + RUN_MS;
    let count = 0;
    for (;;) {
      const { names, waitMs } = await this.ticks.due();
      let enqueued = 0;
      for (const name of shuffled(names)) {
        if (signal.aborted || performance.now() > until) return { count: count + enqueued, waitMs: 0 };
        enqueued += await this.ticks.enqueue(name);
      }
      count += enqueued;
      // Another reaper has locked the others, or they failed.
      if (enqueued === 0) return { count, waitMs };
    }
  }
}

/** Two reapers that find the same schedules share the work if each has an order of its own. */
function shuffled(names: readonly string[]): string[] {
  return names
    .map((name) => ({ name, at: Math.random() }))
    .toSorted((one, other) => one.at - other.at)
    .map(({ name }) => name);
}
