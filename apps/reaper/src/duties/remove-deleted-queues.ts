import { Injectable } from '@nestjs/common';
import { FIRST_ID, QueueRepository, UnleasedRepository } from '@rowmq/store';
import { Batches } from '../batches.js';
import { LARGEST_STRETCH } from '../queue-walk.js';
import type { Duty, Round } from './duty.js';

const RUN_MS = 5000;

/** Removes the deliveries that the delete call of a queue had no time for, then the queue's row. */
@Injectable()
export class RemoveDeletedQueues implements Duty {
  readonly name = 'remove-deleted-queues';
  readonly everySeconds = 30;
  private readonly batches = new Batches(200, 50, LARGEST_STRETCH);

  constructor(
    private readonly queues: QueueRepository,
    private readonly unleased: UnleasedRepository,
  ) {}

  async run({ signal }: Round): Promise<number> {
    const until = performance.now() + RUN_MS;
    let count = 0;
    for (const id of await this.queues.deletedIds()) {
      const last = await this.unleased.lastId(id);
      let after: Buffer | null = last === null ? null : FIRST_ID;
      while (last !== null && after !== null) {
        if (signal.aborted || performance.now() > until) return count;
        const from: Buffer = after;
        const step: { purged: number; left: number; next: Buffer | null } = await this.batches.run(signal, (rows) =>
          this.unleased.purge(id, from, last, rows),
        );
        count += step.purged;
        after = step.next;
      }
      await this.queues.forget(id);
    }
    return count;
  }
}
