import { lowestMessageId } from '@rowmq/contract';
import { type DeliveryStats, FIRST_ID, type Partition } from '@rowmq/store';
import type { TestStore } from '../../support/store.js';
import {
  LAST_ID,
  oneOf,
  type Plan,
  planForQueue,
  planForSome,
  type Scene,
  someNumber,
  type Statements,
} from './scene.js';

/** A statement touches about this many deliveries. */
export const STRETCH = 500;
/** The old minutes must last for a long run. */
const REMOVED_MINUTES = 3;
/** Measured on the clock of the messages' ids. */
const RETENTION_SECONDS = 180;
const AHEAD_MINUTES = 3;
/** With more rows, a split exchanges the partition for a table. */
const ROWS_COPIED = 10_000;
/**
 * The pause between two changes of the table by one reaper, since each blocks all writers. It is
 * shorter while some pairs have not met.
 */
const DDL_PAUSE_MS = { usual: 1500, hurried: 200 };

/** The statements that reapers send. */
export const REAPER_STATEMENTS = {
  expire: {
    weight: 4,
    plan: (scene, store) =>
      planForQueue(scene, store, async ({ id }) => {
        const { found } = await store.unleased.findExpired(id, FIRST_ID, STRETCH);
        const expired = await store.messages.expire(id, found);
        scene.account.expired += expired;
      }),
  },
  'dead-letter expired': {
    weight: 2,
    plan: (scene, store) =>
      planForQueue(scene, store, async (queue) => {
        const { found } = await store.unleased.findExpired(queue.id, FIRST_ID, STRETCH);
        await store.messages.batches.deadLetterExpired(queue, found);
      }),
  },
  'dead-letter': {
    weight: 4,
    plan: (scene, store) =>
      planForQueue(scene, store, async (queue) => {
        const { found } = await store.unleased.findOverReceived(queue, FIRST_ID, STRETCH);
        await store.messages.deadLetter(queue, found);
      }),
  },
  'count depths': {
    weight: 1,
    plan: (scene, { queues, browse, minutes }) =>
      planForSome(scene, queues, async (known) => {
        const depths = new Map<number, DeliveryStats>();
        for (const { id } of known) depths.set(id, await browse.stats(id));
        await minutes.addDepths(depths);
        await minutes.add(new Map(known.map(({ id }) => [id, { expired: someNumber() }])));
      }),
  },
  'remove old minutes': {
    weight: 1,
    plan: ({ queues }, { minutes }) => ({
      queues,
      carryOut: async () => void (await minutes.removeOlder(0, REMOVED_MINUTES)),
    }),
  },
  'remove deleted queue': {
    weight: 1,
    plan: async (scene, { queues, unleased }) => {
      const [id] = await queues.deletedIds();
      if (id === undefined) return undefined;
      return {
        queues: [scene.passing],
        carryOut: async () => {
          const { purged } = await unleased.purge(id, FIRST_ID, LAST_ID, STRETCH);
          scene.account.purged += purged;
          await queues.forget(id);
        },
      };
    },
  },
  'take the lease': {
    weight: 0.5,
    plan: ({ queues }, { reaper }) => ({
      queues,
      carryOut: async () => {
        await reaper.acquireLease(oneOf(['one', 'other']), 1);
        await reaper.record({
          duty: 'stress',
          reaper: 'one',
          startedAt: Date.now(),
          durationMs: 1,
          count: 1,
          error: null,
        });
        await reaper.pruneRuns('stress', 10, 100);
      },
    }),
  },
  'split partitions': {
    weight: 0.5,
    givesWay: true,
    plan: (scene, store) =>
      scene.isSplitting
        ? planDdl(scene, store, async () => {
            const isOverfull = await holdsMoreThan(store, ROWS_COPIED);
            const ahead = { widthMinutes: 1, advanceMinutes: AHEAD_MINUTES };
            const made = await store.partitions.createMissing(ahead);
            scene.done.made += made;
            if (made > 0 && isOverfull) scene.done.overfull += 1;
          })
        : undefined,
  },
  'drop partitions': {
    weight: 0.5,
    givesWay: true,
    plan: (scene, store) =>
      planDdl(scene, store, async () => {
        const settled = { retentionSeconds: RETENTION_SECONDS, locks: 1 };
        const dropped = await store.partitions.dropSettled(settled);
        scene.done.dropped += dropped.length;
      }),
  },
  'thin partition': {
    weight: 1,
    givesWay: true,
    plan: async (scene, store) => {
      const partition = await keptPartition(store);
      return (
        partition && {
          queues: scene.queues,
          carryOut: async () => {
            const first = lowestMessageId(partition.from ?? 0);
            const { deleted } = await store.partitions.thin(partition, first, STRETCH);
            scene.done.thinned += deleted;
          },
        }
      );
    },
  },
  'rebuild partition': {
    weight: 0.3,
    givesWay: true,
    plan: async (scene, store) => {
      const partition = await keptPartition(store);
      return (
        partition &&
        planDdl(scene, store, async () => {
          if (await store.partitions.rebuild(partition)) scene.done.rebuilt += 1;
        })
      );
    },
  },
} satisfies Record<string, Statements>;

/** A partition past retention that still owes messages. */
async function keptPartition({ partitions }: TestStore): Promise<Partition | undefined> {
  const kept = await partitions.listKept({ retentionSeconds: RETENTION_SECONDS });
  return kept.length === 0 ? undefined : oneOf(kept);
}

/** True if the catch-all partition holds more than `rows`. */
async function holdsMoreThan({ database }: TestStore, rows: number): Promise<boolean> {
  return (await database.read('SELECT 1 FROM pack PARTITION (p_max) LIMIT ?, 1', [rows])).length > 0;
}

function planDdl(
  { queues, changedAt, meetings }: Scene,
  store: TestStore,
  carryOut: () => Promise<void>,
): Plan | undefined {
  const pause = meetings.missing.length > 0 ? DDL_PAUSE_MS.hurried : DDL_PAUSE_MS.usual;
  if ((changedAt.get(store) ?? 0) + pause > performance.now()) return undefined;
  changedAt.set(store, performance.now());
  return { queues, carryOut };
}
