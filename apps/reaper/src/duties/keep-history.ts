import { Injectable } from '@nestjs/common';
import { LIMITS } from '@rowmq/contract';
import { BrowseRepository, type DeliveryStats, MinuteRepository, QueueRepository } from '@rowmq/store';
import { Batches } from '../batches.js';
import type { Duty, Round } from './duty.js';

/** A run counts for this long. The next one goes on with the next queue. */
const RUN_MS = 5000;
/** Counts that are stored together. */
const CHUNK = 100;

/**
 * Notes the depth of every queue once a minute, and deletes minutes that are older than a day.
 * Brokers and the other duties add what happens in a minute.
 */
@Injectable()
export class KeepHistory implements Duty {
  readonly name = 'keep-history';
  readonly everySeconds = 60;
  private readonly batches = new Batches();
  /** The last run counted the queues before this id. */
  private nextId = 0;

  constructor(
    private readonly queues: QueueRepository,
    private readonly browse: BrowseRepository,
    private readonly minutes: MinuteRepository,
  ) {}

  async run({ signal }: Round): Promise<number> {
    const removed = await this.batches.runAll(signal, (rows) => this.minutes.removeOlder(LIMITS.historyMinutes, rows));
    return removed + (await this.countQueues(signal));
  }

  private async countQueues(signal: AbortSignal): Promise<number> {
    const until = performance.now() + RUN_MS;
    const queues = (await this.queues.list()).toSorted((one, other) => one.id - other.id);
    const first = Math.max(
      0,
      queues.findIndex(({ id }) => id >= this.nextId),
    );
    let depths = new Map<number, DeliveryStats>();
    let counted = 0;
    try {
      for (const { id } of [...queues.slice(first), ...queues.slice(0, first)]) {
        if (signal.aborted || performance.now() > until) break;
        // A queue whose count always fails must not keep back the others.
        this.nextId = id + 1;
        depths.set(id, await this.browse.stats(id));
        counted += 1;
        if (depths.size < CHUNK) continue;
        await this.minutes.addDepths(depths);
        depths = new Map();
      }
    } finally {
      await this.minutes.addDepths(depths);
    }
    return counted;
  }
}
