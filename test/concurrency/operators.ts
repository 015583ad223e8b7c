import { setTimeout as sleep } from 'node:timers/promises';
import { FIRST_ID, type Queue } from '@rowmq/store';
import type { TestStore } from '../support/store.js';
import { type Ledger, pick } from './group-ledger.js';

/** Deliveries that a purge settles at a time. The consumers need some, too. */
const PURGED_ROWS = 10;
const LAST_ID = Buffer.alloc(16, 255);

/** Operators cancel messages and purge parts of the queue, until it is over. */
export async function operate(
  ledger: Ledger,
  brokers: readonly TestStore[],
  queue: Queue,
  isOver: () => boolean,
): Promise<void> {
  for (let rounds = 0; !isOver(); rounds += 1) {
    const { messages, unleased } = pick(brokers);
    const [candidates, number] = [[...ledger.sent].slice(-20), 3];
    await Promise.all(
      Array.from({ length: Math.min(number, candidates.length) }, async () => {
        const id = pick(candidates);
        await ledger.cancel(id, async () => messages.batches.cancel(Buffer.from(id, 'hex'), [queue.id]));
      }),
    );
    if (rounds % 5 === 0) await ledger.purge(async () => unleased.purge(queue.id, FIRST_ID, LAST_ID, PURGED_ROWS));
    await sleep(30);
  }
}

/** A reaper removes what has expired, until it is over. */
export async function reap(
  ledger: Ledger,
  { unleased, messages }: TestStore,
  queue: Queue,
  isOver: () => boolean,
): Promise<void> {
  while (!isOver()) {
    const { found } = await unleased.findExpired(queue.id, FIRST_ID, 100);
    const expired = found.length === 0 ? 0 : await messages.expire(queue.id, found);
    ledger.expired += expired;
    await sleep(20);
  }
}
