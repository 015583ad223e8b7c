import { setTimeout as sleep } from 'node:timers/promises';
import { Logger } from '@nestjs/common';
import { SchedulerRegistry } from '@nestjs/schedule';
import { beforeEach, expect, test } from 'vitest';
import { DeduplicationRepository, WithdrawnRepository, type Queue } from '@rowmq/store';
import { CreatePartitions } from '../../apps/reaper/src/duties/create-partitions.js';
import { DeadLetterDeliveries } from '../../apps/reaper/src/duties/dead-letter-deliveries.js';
import { DropPartitions } from '../../apps/reaper/src/duties/drop-partitions.js';
import type { Duty } from '../../apps/reaper/src/duties/duty.js';
import { ExpireDeliveries } from '../../apps/reaper/src/duties/expire-deliveries.js';
import { ForgetWithdrawn } from '../../apps/reaper/src/duties/forget-withdrawn.js';
import { KeepHistory } from '../../apps/reaper/src/duties/keep-history.js';
import { PruneRuns } from '../../apps/reaper/src/duties/prune-runs.js';
import { RemoveDeduplication } from '../../apps/reaper/src/duties/remove-deduplication.js';
import { RemoveDeletedQueues } from '../../apps/reaper/src/duties/remove-deleted-queues.js';
import { ThinPartitions } from '../../apps/reaper/src/duties/thin-partitions.js';
import { readReaperConfig } from '../../apps/reaper/src/reaper.config.js';
import { ReaperService } from '../../apps/reaper/src/reaper.service.js';
import { owedMessages } from '../support/deliveries.js';
import { enqueueStamped, HOUR, MINUTE, settleAll, START } from '../support/partitions.js';
import { createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

Logger.overrideLogger(false);

let store: TestStore;
let graveyard: Queue;
let strict: Queue;

beforeEach(async () => {
  store = await openStore({ poolSize: 16 });
  graveyard = await createQueue(store, { messageTtlSeconds: 864_000 });
  strict = await createQueue(store, { messageTtlSeconds: 864_000, maxReceives: 2, deadLetterQueue: graveyard.name });
  return () => store.close();
});

function duties(of: TestStore): Duty[] {
  const config = readReaperConfig({
    ROWMQ_DATABASE_URL: store.url,
    ROWMQ_PARTITION_MINUTES: '1',
    ROWMQ_PARTITIONS_AHEAD_MINUTES: '5',
    ROWMQ_RETENTION_SECONDS: '120',
  });
  return [
    new CreatePartitions(of.partitions, config),
    new ExpireDeliveries(of.queues, of.unleased, of.messages.batches, of.minutes),
    new DeadLetterDeliveries(of.queues, of.unleased, of.messages.batches, of.minutes),
    new RemoveDeletedQueues(of.queues, of.unleased),
    new RemoveDeduplication(new DeduplicationRepository(of.database)),
    new ForgetWithdrawn(new WithdrawnRepository(of.database)),
    new DropPartitions(of.partitions, config),
    new ThinPartitions(of.partitions, config),
    new KeepHistory(of.queues, of.browse, of.minutes),
    new PruneRuns(of.reaper),
  ];
}

// Ten rounds of DDL beside the load take long on a busy machine.
test(
  'two reapers that both believe they lead run every duty at the same time under load without harm',
  { timeout: 180_000 },
  async () => {
    let now = START;
    let working = true;
    const lasting = new Set<string>();
    const acked = new Set<string>();
    const key = (id: Buffer): string => id.toString('hex');

    /** Works so many times in each step of time: a slow machine gets no more to do. */
    const paced = async (times: number, work: () => Promise<void>): Promise<void> => {
      let [step, done] = [now, 0];
      while (working) {
        if (step !== now) [step, done] = [now, 0];
        if (done < times) await work();
        else await sleep(5);
        done += 1;
      }
    };
    const produce = (): Promise<void> =>
      paced(10, async () => {
        const idTime = now - Math.floor(Math.random() * 3 * MINUTE);
        const messages = [...numbered(4), ...numbered(2, { expiresInSeconds: 30 })];
        const ids = await store.at(now, idTime).messages.enqueue(strict.name, messages);
        for (const id of ids.slice(0, 4)) lasting.add(key(id));
      });
    const consume = async (queue: Queue, share: number): Promise<void> => {
      while (working) {
        const leased = await store.at(now).messages.dequeue(queue, { maxMessages: 20, leaseSeconds: 90 });
        const some = leased.filter(() => Math.random() < share);
        const outcomes = some.length === 0 ? [] : await store.at(now).messages.ack(queue.id, some);
        for (const [index, { messageId }] of some.entries()) if (outcomes[index] === null) acked.add(key(messageId));
      }
    };
    const comeAndGo = (): Promise<void> =>
      paced(3, async () => {
        const brief = await createQueue(store, { messageTtlSeconds: 864_000 });
        await store.at(now).messages.enqueue(brief.name, numbered(2));
        await store.queues.delete(brief.name);
      });
    const reap = async (): Promise<void> => {
      const own = await openStore({ on: store.url });
      const service = new ReaperService(own.reaper, new SchedulerRegistry(), [], { intervalSeconds: 1 });
      const all = duties(own);
      for (let round = 0; round < 10; round += 1) {
        now += MINUTE / 2;
        own.at(now);
        for (const duty of all) await service.runDuty(duty, { signal: new AbortController().signal });
      }
      await own.close();
    };

    // These messages are an hour old and settled, so that the duties have partitions to drop.
    store.at(START - HOUR);
    await duties(store)[0]!.run({ signal: new AbortController().signal });
    await enqueueStamped(store, strict, { at: START - HOUR, count: 100 });
    await settleAll(store, strict, START - HOUR);

    // Quick consumers remove every expired or over-received message that they find. Nobody claims
    // from this queue, so only the duties find its messages.
    const neglected = await createQueue(store, {
      messageTtlSeconds: 864_000,
      maxReceives: 1,
      deadLetterQueue: graveyard.name,
    });
    await store.at(START).messages.enqueue(neglected.name, numbered(19));
    await store.at(START).messages.enqueue(neglected.name, [message({ deduplicationId: 'forgotten' })]);
    await store.at(START).messages.dequeue(neglected, { maxMessages: 20, leaseSeconds: 30 });
    await store.at(START).messages.enqueue(neglected.name, numbered(20, { expiresInSeconds: 30 }));

    const load = [produce(), produce(), consume(strict, 0.7), consume(graveyard, 0.1), comeAndGo()];
    await Promise.all([reap(), reap()]);
    working = false;
    await Promise.all(load);

    const counts = new Map<string, number>();
    for (const duty of await store.reaper.duties()) {
      for (const run of await store.reaper.lastRuns(duty, 100)) {
        counts.set(duty, (counts.get(duty) ?? 0) + run.count);
        if (run.error !== null) expect(`${duty}: ${run.error}`).toMatch(/Lock wait timeout exceeded/);
      }
    }
    for (const duty of [
      'create-partitions',
      'expire-deliveries',
      'dead-letter-deliveries',
      'remove-deleted-queues',
      'remove-deduplication',
      'drop-partitions',
      'thin-partitions',
    ]) {
      expect([duty, counts.get(duty)]).toEqual([duty, expect.toSatisfy((count: number) => count > 0)]);
    }

    // No message is lost: every message that was not acked is owed once, in one of the two queues,
    // with its body.
    const owed = [...(await owedMessages(store, strict)), ...(await owedMessages(store, graveyard))];
    expect(owed.filter(({ body }) => body === null)).toEqual([]);
    const left = owed.map(({ id }) => key(id)).filter((id) => lasting.has(id));
    expect(left.toSorted()).toEqual([...lasting].filter((id) => !acked.has(id)).toSorted());
    const [orphans] = await store.database.read<{ n: number }>(
      'SELECT COUNT(*) AS n FROM delivery d LEFT JOIN pack p ON p.id = d.pack_id WHERE p.id IS NULL',
    );
    expect(Number(orphans?.n)).toBe(0);
  },
);
