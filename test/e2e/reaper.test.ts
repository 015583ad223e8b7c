import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ReaperAnswer } from '@rowmq/contract';
import { Api } from '../support/api.js';
import { DatabaseProxy } from '../support/database-proxy.js';
import { DAY, enqueueStamped, HOUR, settleAll, stored, storeStamped } from '../support/partitions.js';
import { type AppProcess, type Broker, freePort, startApp, startBroker, startReaper } from '../support/processes.js';
import { message, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

const OFTEN = { ROWMQ_REAPER_INTERVAL_SECONDS: '1' };

let broker: Broker;
let store: TestStore;
const reapers: AppProcess[] = [];

beforeAll(async () => {
  broker = await startBroker();
  store = await openStore({ on: broker.database.url });
});

afterEach(() => Promise.all(reapers.splice(0).map((reaper) => reaper.kill())));

afterAll(async () => {
  await store.close();
  await broker.stop();
  await broker.database.drop();
});

async function reap(env: Record<string, string> = {}): Promise<AppProcess> {
  const reaper = await startReaper(broker.database, { ...OFTEN, ...env });
  reapers.push(reaper);
  return reaper;
}

async function shown(): Promise<ReaperAnswer> {
  const response = await fetch(`${broker.url}/v1/admin/reaper`);
  expect(response.status).toBe(200);
  return (await response.json()) as ReaperAnswer;
}

describe('a reaper', () => {
  test('removes expired, over-received, deleted and settled messages, and reports its work', async () => {
    expect(await shown()).toEqual({ leader: null, duties: [] });
    const now = Date.now();
    const name = `queue-${randomBytes(4).toString('hex')}`;
    const { queue: graveyard } = await store.queues.put(`${name}-dead`, { messageTtlSeconds: 864_000 });
    const { queue } = await store.queues.put(name, {
      messageTtlSeconds: 864_000,
      maxReceives: 1,
      deadLetterQueue: graveyard.name,
    });
    const { queue: doomed } = await store.queues.put(`${name}-doomed`, {});
    // A reaper ran three days ago. From that time a settled partition is left, and one with an owed
    // message.
    const past = now - 3 * DAY;
    await store.at(past).partitions.createMissing({ widthMinutes: 60, advanceMinutes: 120 });
    const settled = await storeStamped(store, queue, { at: past, count: 500 });
    await settleAll(store, queue, past);
    const thinned = await storeStamped(store, queue, { at: past + HOUR, count: 500 });
    await settleAll(store, queue, past + HOUR);
    const kept = await enqueueStamped(store, graveyard, { at: past + HOUR, count: 2 });
    await store.at(now - HOUR).messages.enqueue(queue.name, [message({ expiresInSeconds: 600 })]);
    const spent = await store.at(now - HOUR).messages.enqueue(queue.name, [message({ priority: 9 })]);
    await store.at(now - HOUR + 61_000).messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 60 });
    await store.at(undefined).messages.enqueue(doomed.name, [message(), message()]);
    await store.queues.delete(doomed.name);

    const reaper = await reap({ ROWMQ_RETENTION_SECONDS: '3600' });
    // Ready means that an enqueue finds partitions.
    const spans = await store.partitions.list();
    expect(spans.at(-2)!.until).toBeGreaterThan(now + 47 * HOUR);

    await eventually('all of it is done', async () => {
      const rows = await store.database.read<{ queueId: number; messages: number | string }>(
        'SELECT queue_id AS queueId, SUM(BIT_COUNT(members)) AS messages FROM delivery GROUP BY queue_id',
      );
      const [owed] = rows;
      return (
        rows.length === 1 &&
        owed?.queueId === graveyard.id &&
        Number(owed.messages) === 3 &&
        (await stored(store, [...settled, ...thinned])) === 0
      );
    });
    expect(await stored(store, [...kept, ...spent])).toBe(3);
    expect(await store.queues.deletedIds()).toEqual([]);

    const { leader, duties } = await eventually('every duty has been recorded', async () => {
      const answer = await shown();
      return answer.duties.length === 13 && answer;
    });
    expect(leader?.reaper).toContain(`:${reaper.pid}:`);
    expect(Date.parse(leader!.leaseExpiresAt)).toBeGreaterThan(Date.now());
    const total = Object.fromEntries(
      duties.map(({ duty, runs }) => [duty, runs.reduce((sum, { count }) => sum + count, 0)]),
    );
    expect(total).toMatchObject({
      'expire-deliveries': 1,
      'dead-letter-deliveries': 1,
      'remove-deleted-queues': 2,
      'remove-deduplication': 0,
      'thin-partitions': 500,
      'forget-withdrawn': 0,
      'keep-history': expect.any(Number),
      'prune-audit': 0,
      'prune-runs': 0,
      'enqueue-ticks': 0,
    });
    expect(total['create-partitions']).toBeGreaterThanOrEqual(49);
    expect(total['drop-partitions']).toBeGreaterThanOrEqual(1);
    for (const { runs } of duties)
      for (const run of runs) expect(run).toMatchObject({ error: null, reaper: leader!.reaper });
    const api = new Api(broker.url);
    expect(await api.metric('rowmq_reaper_leader')).toBe(1);
    expect(await api.metric('rowmq_reaper_handled_last_hour{duty="thin-partitions"}')).toBe(500);
    const { text } = await api.get('/metrics');
    for (const { duty } of duties) {
      const age = new RegExp(`^rowmq_reaper_last_success_age_seconds\\{duty="${duty}"\\} ([\\d.]+)$`, 'm').exec(
        text,
      )?.[1];
      expect(Number(age), duty).toBeLessThan(120);
    }
    await reaper.stop();
    expect((await shown()).leader).toBeNull();
    await eventually('that is scraped', async () => (await api.metric('rowmq_reaper_leader')) === 0);
  });

  test('releases its lease at once when it is stopped, and the standby continues', async () => {
    const first = await reap();
    const second = await reap();
    expect((await shown()).leader?.reaper).toContain(`:${first.pid}:`);
    await first.stop();
    await eventually('the other works', async () => (await shown()).leader?.reaper.includes(`:${second.pid}:`), 10_000);
    const { queue } = await store.queues.put('handed-over', {});
    await store.at(Date.now() - HOUR, Date.now()).messages.enqueue(queue.name, [message({ expiresInSeconds: 1 })]);
    const deliveries = () => store.database.read('SELECT 1 FROM delivery WHERE queue_id = ?', [queue.id]);
    await eventually('it reaps', async () => (await deliveries()).length === 0);
    await second.stop();
  });

  test('answers probes: it lives, and is ready while it reaches the database, also when it stands by', async () => {
    const proxy = await DatabaseProxy.start(broker.database.url);
    await reap();
    const port = await freePort();
    const standby = await startReaper({ ...broker.database, url: proxy.url }, { ROWMQ_REAPER_PORT: String(port) });
    reapers.push(standby);
    const statusOf = async (path: string): Promise<number> => (await fetch(`http://127.0.0.1:${port}${path}`)).status;
    try {
      expect((await shown()).leader?.reaper).not.toContain(`:${standby.pid}:`);
      expect([await statusOf('/health/ready'), await statusOf('/health/live'), await statusOf('/')]).toEqual([
        200, 200, 404,
      ]);
      proxy.cut();
      await eventually('it is not ready', async () => (await statusOf('/health/ready')) === 503, 20_000);
      expect(await statusOf('/health/live')).toBe(200);
      proxy.heal();
      await eventually('it is ready again', async () => (await statusOf('/health/ready')) === 200, 20_000);
    } finally {
      proxy.heal();
      await standby.stop();
      await proxy.close();
    }
    await expect(startReaper(broker.database, { ROWMQ_REAPER_PORT: new URL(broker.url).port })).rejects.toThrow(
      /EADDRINUSE/,
    );
  });

  test('does not start with invalid settings, and lists every fault', async () => {
    const started = startApp('reaper', {
      ROWMQ_DATABASE_URL: broker.database.url,
      ROWMQ_RETENTION_SECONDS: '1',
      ROWMQ_PARTITION_MINUTES: 'sixty',
    });
    await expect(started).rejects.toThrow(
      /exited[^]*ROWMQ_RETENTION_SECONDS must be[^]*ROWMQ_PARTITION_MINUTES must be/,
    );
  });
});
