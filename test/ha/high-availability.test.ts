import { setTimeout as sleep } from 'node:timers/promises';
import type { GroupMember } from '@rowmq/mysql-server';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { Api } from '../support/api.js';
import { startBalancer } from '../support/balancer.js';
import { DAY, enqueueStamped, hex, HOUR, settleAll, claimAll } from '../support/partitions.js';
import type { Broker } from '../support/processes.js';
import { createQueue, openStore } from '../support/store.js';
import { eventually } from '../support/wait.js';
import { Load } from './load.js';
import { DEADLINE_MS, HaRig, serverOf, wake } from './rig.js';
import { CONSISTENCY, consistencyOf, failOverToLaggard } from './stale-primary.js';
import { record, tableText } from './table.js';
import { WriteAttempts } from './write-attempts.js';

/** Unset: the smallest form, some faults once. Else all of them, so many times each. */
const ROUNDS = Number(process.env['HA_ROUNDS'] ?? '0');
const rounds = Array.from({ length: Math.max(1, ROUNDS) }, (_, round) => round + 1);
const TEST_MS = 600_000;
/** For so long a new primary that is behind is asked. */
const WATCHED_MS = 10_000;

let rig: HaRig;
let loads: Load[] = [];
let failed = false;

beforeAll(async () => {
  rig = await HaRig.start({ isolated: ROUNDS > 0 });
}, TEST_MS);

afterAll(async () => {
  await rig?.end({ keep: failed });
  console.log(`\n${tableText()}\n`);
}, TEST_MS);

afterEach(async ({ task }) => {
  failed ||= task.result?.state === 'fail';
  for (const load of loads.splice(0)) await load.abandon();
  await rig.endTests();
});

async function startLoad(urls = rig.brokerUrls, seed?: number): Promise<Load> {
  const load = await Load.start(urls, seed);
  loads.push(load);
  return load;
}

/**
 * Lets something happen under load, `happen` answering how long there was no service; fails unless
 * every guarantee was kept and all is well in the end. Adds it to the table.
 */
async function expectAllKept(fault: string, happen: () => Promise<number[]>): Promise<void> {
  const load = await startLoad();
  const inFlight = load.requestsInFlight;
  const recovery = await happen();
  await rig.whole();
  await load.flows();
  record(fault, inFlight, recovery, [await load.judge()]);
}

/** The notes that a member has in `ha_marker`. */
async function markers(member: GroupMember): Promise<string[]> {
  const connection = await rig.admin(member);
  const [rows] = await connection.query<RowDataPacket[]>('SELECT note FROM ha_marker');
  connection.destroy();
  return rows.map(({ note }) => note as string);
}

/** A broker that knows one member only, and what it answers to one enqueue after the other. */
async function startStuckBroker(member: GroupMember): Promise<{ broker: Broker; enqueue(): Promise<number> }> {
  const broker = await rig.newBroker({}, member);
  const queue = new Api(broker.url).queue('stuck');
  await queue.put();
  await queue.admin('purge');
  await queue.enqueue('before');
  return { broker, enqueue: async () => (await queue.request('enqueue', { messages: [{ body: 'after' }] })).status };
}

test('the servers are set up as they are meant to be, and no process warns of them', async () => {
  for (const member of rig.group.members) expect(await consistencyOf(rig, member)).toBe(CONSISTENCY);
  for (const app of [...rig.brokers, ...rig.reapers]) expect(app.output()).not.toMatch(/group_replication_\w+ is /);
});

test('a member that somebody takes for the one to start the group from is left in the group that it is in', async () => {
  await rig.whole();
  const primary = await rig.primary();
  await Promise.all(rig.group.members.map(async (member) => member.bootstrap()));
  for (const member of rig.group.members) expect(await member.probe()).toMatchObject({ state: 'ONLINE', online: 3 });
  expect((await rig.primary()).number).toBe(primary.number);
});

describe.each(rounds)('round %i', () => {
  test('a primary that is killed is followed by another', { timeout: TEST_MS }, async () => {
    await expectAllKept('primary killed (SIGKILL)', async () => {
      const primary = await rig.primary();
      await serverOf(primary).kill();
      const at = performance.now();
      const recovery = await rig.prober.recovered(at, DEADLINE_MS);
      expect((await rig.primary()).number).not.toBe(primary.number);
      await primary.start();
      return [recovery];
    });
  });

  test(
    'brokers and reapers come and go under load, and clients see closed connections and nothing else',
    { timeout: TEST_MS },
    async () => {
      const balancer = await startBalancer();
      onTestFinished(() => balancer.close());
      const first = await rig.newBroker();
      balancer.add(first.url);
      const early = await startLoad([balancer.url], 1);
      const from = performance.now();
      const more = await Promise.all([rig.newBroker(), rig.newBroker(), rig.newBroker()]);
      const reapers = await Promise.all([rig.newReaper(), rig.newReaper()]);
      for (const { url } of more) balancer.add(url);
      // New connections are spread; those there are stay where they are.
      const late = await startLoad([balancer.url], 2);
      const inFlight = early.requestsInFlight + late.requestsInFlight;
      for (const { url } of more) await eventually(`${url} works`, async () => (await enqueued(url)) > 0);
      for (const broker of more) {
        balancer.remove(broker.url);
        await broker.stop();
        await early.flows();
      }
      for (const reaper of reapers) await reaper.stop();
      await late.flows();
      const results = [await early.judge(), await late.judge()];
      for (const { errors } of results) {
        expect(Object.keys(errors).filter((code) => code !== 'no-answer' && code !== 'unreachable')).toEqual([]);
      }
      record('brokers 1 → 4 → 1', inFlight, [rig.prober.longestGap(from, performance.now())], results);
      await first.stop();
    },
  );

  // Beyond the smallest form.
  describe.runIf(ROUNDS > 0)('in full', () => {
    test(
      'a primary that hangs is followed by another, and accepts no write when it wakes',
      { timeout: TEST_MS },
      async () => {
        await expectAllKept('primary frozen (SIGSTOP), and woken', async () => {
          const primary = await rig.primary();
          const stuck = await startStuckBroker(primary);
          const attempts = await WriteAttempts.prepare(primary);
          const { pid } = serverOf(primary);
          process.kill(pid, 'SIGSTOP');
          const at = performance.now();
          attempts.begin();
          const answers: number[] = [];
          let going = true;
          const enqueues = (async () => {
            while (going) answers.push(await stuck.enqueue());
          })();
          // Waited for below.
          enqueues.catch(() => undefined);
          let recovery: number;
          try {
            recovery = await rig.prober.recovered(at, DEADLINE_MS);
            await rig.primary(primary);
            wake(pid);
            await rig.whole();
            await attempts.refused(DEADLINE_MS);
          } finally {
            going = false;
            wake(pid);
            await attempts.end();
          }
          await enqueues;
          await stuck.broker.kill();
          expect(attempts.accepted, attempts.told()).toEqual([]);
          for (const member of rig.group.members) expect(await markers(member)).toEqual([]);
          expect(answers.length).toBeGreaterThan(0);
          expect(answers.filter((status) => status !== 503)).toEqual([]);
          const { stats } = await new Api(rig.brokerUrls[0] as string).queue('stuck').get();
          expect(stats.ready).toBe(1);
          return [recovery];
        });
      },
    );

    test(
      'a primary that is cut off from the others, but not from the brokers, is followed by another and confirms no write',
      { timeout: TEST_MS },
      async ({ skip }) => {
        const { isolation } = rig;
        if (isolation === undefined) {
          skip(
            'This machine gives no network namespaces (unshare --net, ip): the cut is not tested, only what looks the same from one side.',
          );
          return;
        }
        await expectAllKept('primary cut off from the other servers (network)', async () => {
          const primary = await rig.primary();
          const attempts = await WriteAttempts.prepare(primary);
          await isolation.cut(primary);
          const at = performance.now();
          attempts.begin();
          let recovery: number;
          try {
            recovery = await rig.prober.recovered(at, DEADLINE_MS);
            expect((await rig.primary(primary)).number).not.toBe(primary.number);
            await eventually('it is read-only', async () => (await primary.probe()).readOnly, DEADLINE_MS);
            await attempts.refused(DEADLINE_MS);
          } finally {
            await isolation.mend(primary);
            await rig.whole();
            await attempts.end();
          }
          expect(attempts.accepted, attempts.told()).toEqual([]);
          for (const member of rig.group.members) expect(await markers(member)).toEqual([]);
          return [recovery];
        });
      },
    );

    test(
      'a primary that hears none of the others confirms no write and becomes read-only; there is service again when they are back',
      { timeout: TEST_MS },
      async () => {
        await expectAllKept('primary without majority, until the others are back', async () => {
          const primary = await rig.primary();
          const others = rig.group.members.filter((member) => member !== primary);
          const attempts = await WriteAttempts.prepare(primary);
          const pids = others.map((other) => serverOf(other).pid);
          try {
            // A broker that does not answer looks like one that cannot be reached.
            for (const pid of pids) process.kill(pid, 'SIGSTOP');
            attempts.begin();
            await eventually(
              'it is read-only',
              async () => (await primary.probe().catch(() => undefined))?.readOnly,
              DEADLINE_MS,
            );
            await attempts.refused(DEADLINE_MS);
          } finally {
            await attempts.end();
            for (const pid of pids) wake(pid);
          }
          const at = performance.now();
          expect(attempts.accepted, attempts.told()).toEqual([]);
          const recovery = await rig.prober.recovered(at, DEADLINE_MS);
          expect((await rig.primary()).number).not.toBe(primary.number);
          return [recovery];
        });
      },
    );

    test('a primary that is killed while it drops partitions loses nothing', { timeout: TEST_MS }, async () => {
      await expectAllKept('primary killed during a partition drop', async () => {
        const store = await openStore({ on: rig.group.url });
        onTestFinished(() => store.close());
        const queue = await createQueue(store, { messageTtlSeconds: 864_000 });
        const now = Date.now();
        const settledAt = Array.from({ length: 24 }, (_, hour) => now - 2 * DAY + (hour + 2) * HOUR);
        for (const at of settledAt) await enqueueStamped(store, queue, { at, now, count: 200 });
        await settleAll(store, queue, now);
        const owed: Buffer[] = [];
        for (const at of settledAt.filter((_, index) => index % 6 === 5)) {
          owed.push(...(await enqueueStamped(store, queue, { at, now, count: 20 })));
        }
        const before = (await store.partitions.list()).length;
        const primary = await rig.primary();
        const observer = await rig.admin(primary);
        const reap = (): Promise<string[]> => store.at(now).partitions.dropSettled({ retentionSeconds: 3600 });
        const reaping = reap().then(
          (dropped) => dropped,
          (error: unknown) => error as Error,
        );
        await eventually('a partition is being dropped', async () => {
          const [rows] = await observer.query<RowDataPacket[]>(
            `SELECT 1 FROM performance_schema.processlist WHERE INFO LIKE 'ALTER TABLE message DROP%'`,
          );
          return rows.length > 0;
        });
        await serverOf(primary).kill();
        const at = performance.now();
        observer.destroy();
        const recovery = await rig.prober.recovered(at, DEADLINE_MS);
        expect(await reaping).toBeInstanceOf(Error);
        await primary.start();
        await eventually('the rest is dropped', async () => (await reap()).length === 0, DEADLINE_MS);
        expect((await store.partitions.list()).length).toBeLessThan(before - 10);
        expect(hex((await claimAll(store, queue, now)).map(({ messageId }) => messageId))).toEqual(hex(owed));
        return [recovery];
      });
    });

    test.each([CONSISTENCY, 'EVENTUAL'])(
      'brokers answer nothing that contradicts what was confirmed while a new primary is behind, with the consistency %s',
      { timeout: TEST_MS },
      async (level) => {
        const answers: string[] = [];
        const { queue, receipt } = await failOverToLaggard(rig, level, async (id) => {
          for (const until = performance.now() + WATCHED_MS; performance.now() < until; await sleep(100)) {
            const some = rig.brokerUrls.map((url) => new Api(url).get(`/v1/admin/messages/${id}`));
            for (const { status, text } of await Promise.all(some)) answers.push(`${status} ${text}`);
          }
        });
        expect(answers.length).toBeGreaterThan(0);
        expect(answers.filter((answer) => !answer.startsWith('503'))).toEqual([]);
        expect(await queue.ack(receipt)).toEqual({ acked: [receipt], failed: [] });
      },
    );

    test('all servers are restarted, one after the other', { timeout: TEST_MS }, async () => {
      await expectAllKept('rolling restart of the three servers', async () => {
        const gaps: number[] = [];
        const last = await rig.primary();
        for (const member of [...rig.group.members.filter((each) => each !== last), last]) {
          const from = performance.now();
          await serverOf(member).stop();
          await rig.prober.recovered(performance.now(), DEADLINE_MS);
          await member.start();
          await rig.whole();
          gaps.push(rig.prober.longestGap(from, performance.now()));
        }
        return gaps;
      });
    });

    test('all brokers and reapers are restarted, one after the other', { timeout: TEST_MS }, async () => {
      await expectAllKept('rolling restart of brokers and reapers', async () => {
        const from = performance.now();
        for (const [index, broker] of rig.brokers.entries()) {
          await broker.stop();
          rig.brokers[index] = await rig.newBroker({ ROWMQ_PORT: new URL(broker.url).port });
          rig.brokers[index].url = broker.url;
          await rig.prober.recovered(performance.now(), DEADLINE_MS);
        }
        for (const [index, reaper] of rig.reapers.entries()) {
          await reaper.stop();
          rig.reapers[index] = await rig.newReaper();
        }
        return [rig.prober.longestGap(from, performance.now())];
      });
    });
  });
});

/** Messages that a broker has stored, all queues together. */
async function enqueued(url: string): Promise<number> {
  const { text } = await new Api(url).get('/metrics');
  const samples = [...text.matchAll(/^rowmq_messages_total\{[^}]*event="enqueued"[^}]*\} (\d+)/gm)];
  return samples.reduce((sum, [, value]) => sum + Number(value), 0);
}
