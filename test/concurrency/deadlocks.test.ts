import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EmbeddedServer, migrateDatabase } from '@rowmq/store';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { deadlocks, lastDeadlock } from '../support/deadlocks.js';
import { serverProgram, testServer } from '../support/servers.js';
import { CONNECTIONS, Stress } from './stress/stress.js';

/*
 * Every kind of statement meets every other, on the same queue, again and again: `npm run test:deadlocks -- --minutes 10` goes on for so long, `npm test` for seconds. The judge is the counter of a
 * server of its own: nothing is retried out of its sight, and no other test adds to it.
 */

const SECONDS = Number(process.env['DEADLOCKS_MINUTES'] ?? 0.2) * 60;
/** More, on a slow machine, until every pair has met and a partition was dropped. */
const EXTRA_SECONDS = 180;

let dataDir: string;
let server: EmbeddedServer;
let stress: Stress;
let passed = false;

const killServer = (): void => void server.kill();

beforeAll(async () => {
  const program = await serverProgram();
  dataDir = await mkdtemp(join(tmpdir(), 'rowmq-deadlocks-'));
  server = await EmbeddedServer.start({ program, dataDir, bufferPoolMegabytes: 256 });
  process.once('exit', killServer);
  await migrateDatabase(server.url);
  stress = await Stress.open(server.url);
});
afterAll(async () => {
  await stress.close();
  await server.stop();
  process.off('exit', killServer);
  if (passed) await rm(dataDir, { recursive: true, force: true });
  // Its log has every deadlock.
  else console.log(`The data and the log of the server are kept in ${dataDir}`);
});

it(
  `every kind of statement meets every other on ${CONNECTIONS} connections for ${SECONDS} s: no deadlock, nothing lost, nothing handed out after its ack`,
  async () => {
    const { scene, meetings } = stress;
    const before = await deadlocks(server.url);
    const started = performance.now();
    const seconds = (): number => (performance.now() - started) / 1000;
    const hasMetAll = (): boolean => meetings.missing.length === 0 && scene.done.dropped > 0 && scene.done.overfull > 0;
    await stress.run(() => seconds() >= SECONDS && (hasMetAll() || seconds() >= SECONDS + EXTRA_SECONDS));
    const met = (await deadlocks(server.url)) - before;
    console.log(report(seconds(), met));
    expect(met, await lastDeadlock(server.url)).toBe(0);
    expect(meetings.missing).toEqual([]);
    expect(scene.done).toMatchObject({ dropped: expect.toSatisfy(isSome), overfull: expect.toSatisfy(isSome) });

    const left = await stress.drain();
    const { account } = scene;
    expect(account.faults).toEqual([]);
    expect(left).toBe(0);
    expect(account.owed).toBeGreaterThanOrEqual(0);
    expect(account.owed).toBeLessThanOrEqual(account.purgedUntold);
    // Old holders did meet new ones.
    expect(account.refused).toBeGreaterThan(100);
    passed = true;
  },
  (SECONDS + EXTRA_SECONDS + 120) * 1000,
);

function isSome(count: number): boolean {
  return count > 0;
}

function report(seconds: number, met: number): string {
  const { carriedOut, refused, errors, meetings, scene } = stress;
  const { account, done } = scene;
  const total = [...carriedOut.values()].reduce((sum, count) => sum + count, 0);
  const list = (counts: Iterable<[string | number, number]>): string =>
    [...counts].map(([name, count]) => `${name} ${count}`).join(', ') || 'none';
  return [
    `${testServer().kind}: ${met} deadlocks in ${Math.round(seconds)} s, ${total} operations.`,
    `Operations: ${list(carriedOut)}.`,
    `Refused, or gave way: ${list(refused)}.`,
    `Deliveries: ${account.stored} stored, ${account.acked} acked, ${account.expired} expired, ${account.purged} purged; ${account.refused} receipts of acks refused.`,
    `Partitions: ${list(Object.entries(done))}.`,
    `Errors of the server, by number: ${list(errors)}.`,
    `How often each pair was under way on the same queue at the same time:`,
    meetings.matrix(),
  ].join('\n');
}
