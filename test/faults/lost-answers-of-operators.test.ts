import { ApiKeyRepository, digestOf, JobRepository, ScheduleRepository, SessionRepository } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { commits, type CuttingProxy, startCuttingProxy } from '../support/cutting-proxy.js';
import { createQueue, openStore, type TestStore } from '../support/store.js';

/*
 * The connection is cut around the COMMIT of what an operator asked for, or around a statement that
 * commits by itself. The operator must get the answer of the first try.
 */

let direct: TestStore;
let store: TestStore;
let proxy: CuttingProxy;

beforeAll(async () => {
  direct = await openStore();
  proxy = await startCuttingProxy(direct.url);
  store = await openStore({ on: proxy.url });
});
afterAll(async () => {
  await store.close();
  await proxy.close();
  await direct.close();
});

/** A packet that commits: the end of a transaction, or a lone change of this table. */
const changes = (table: string) => (packet: Buffer) =>
  commits(packet) ||
  (!packet.includes(';') && /(INSERT INTO|DELETE FROM) /.test(String(packet)) && packet.includes(table));

describe.each(['before', 'late', 'after'] as const)('a connection cut around its COMMIT (%s)', (when) => {
  async function cutOnce<T>(table: string, work: () => Promise<T>): Promise<T> {
    const before = proxy.cuts();
    proxy.cutAt(changes(table), when);
    const result = await work();
    expect(proxy.cuts()).toBe(before + 1);
    return result;
  }

  it('a job is created once', async () => {
    const queue = await createQueue(direct);
    const wish = { queue, target: null, filter: {}, patterns: [], messagesPerSecond: null, maxMessages: null };
    const job = await cutOnce('job', () => new JobRepository(store.database).create({ kind: 'purge', ...wish }));
    const { jobs } = await new JobRepository(direct.database).list({ queue: queue.name, limit: 10 });
    expect(jobs).toEqual([job]);
  });

  it('a session begins', async () => {
    const digest = digestOf(`cookie ${when}`).toString();
    const session = { digest, keyId: null, keyDigest: 'digest-of-a-key' };
    await cutOnce('dashboard_session', () => new SessionRepository(store.database).add(session, 60));
    expect(await new SessionRepository(direct.database).find(digest)).toEqual(session);
  });

  it('a key is revoked, and said to be', async () => {
    const keys = new ApiKeyRepository(store.database);
    const name = `key-${when}`;
    await keys.create({ name, scopes: ['read'], patterns: [], messagesPerSecond: null, longPolls: null });
    await cutOnce('api_key', () => keys.revoke(name));
    await expect(keys.get(name)).rejects.toMatchObject({ code: 'key-not-found' });
  });

  it('a schedule is deleted, and said to be', async () => {
    const schedules = new ScheduleRepository(store.database);
    const { name } = await createQueue(direct);
    const message = { body: 'tick', bodyEncoding: 'utf8' as const, priority: 4 };
    await schedules.put(name, { queue: name, everySeconds: 60, message, enabled: true, missed: 'last' });
    await cutOnce('schedule', () => schedules.delete(name));
    await expect(schedules.get(name)).rejects.toMatchObject({ code: 'schedule-not-found' });
  });
});
