import {
  ApiKeyRepository,
  type Database,
  digestOf,
  JobRepository,
  ScheduleRepository,
  SessionRepository,
  TopicRepository,
} from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { commits, type CuttingProxy, startCuttingProxy } from '../support/cutting-proxy.js';
import { losingAnswers } from '../support/lost-answer.js';
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

const MESSAGE = { body: 'tick', bodyEncoding: 'utf8' as const, priority: 4 };

/** A statement that commits by itself. */
const adds = (table: string) => (packet: Buffer) =>
  !packet.includes(';') && packet.includes('INSERT INTO') && packet.includes(table);

describe.each(['before', 'late', 'after'] as const)('a connection cut around its COMMIT (%s)', (when) => {
  async function cutOnce<T>(work: () => Promise<T>, isMeant = commits): Promise<T> {
    const before = proxy.cuts();
    proxy.cutAt(isMeant, when);
    const result = await work();
    expect(proxy.cuts()).toBe(before + 1);
    return result;
  }

  it('a job is created once', async () => {
    const queue = await createQueue(direct);
    const wish = { queue, target: null, filter: {}, patterns: [], messagesPerSecond: null, maxMessages: null };
    const job = await cutOnce(() => new JobRepository(store.database).create({ kind: 'purge', ...wish }));
    const { jobs } = await new JobRepository(direct.database).list({ queue: queue.name, limit: 10 });
    expect(jobs).toEqual([job]);
  });

  it('a session begins', async () => {
    const digest = digestOf(`cookie ${when}`).toString();
    const session = { digest, keyId: null, keyDigest: 'digest-of-a-key' };
    await cutOnce(() => new SessionRepository(store.database).add(session, 60), adds('dashboard_session'));
    expect(await new SessionRepository(direct.database).find(digest)).toEqual(session);
  });

  it('a key is revoked, and said to be', async () => {
    const keys = new ApiKeyRepository(store.database);
    const name = `key-${when}`;
    await keys.create({ name, scopes: ['read'], patterns: [], messagesPerSecond: null, longPolls: null });
    await cutOnce(() => keys.revoke(name));
    await expect(keys.get(name)).rejects.toMatchObject({ code: 'key-not-found' });
  });

  it('a topic and its subscription are created, changed and deleted, and said to be', async () => {
    const { topics } = store;
    const { name: queue } = await createQueue(direct);
    const topic = `topic-${when}`;
    expect(await cutOnce(() => topics.put(topic))).toMatchObject({ created: true });
    expect(await cutOnce(() => topics.put(topic, { deduplicationSeconds: 7 }))).toMatchObject({
      created: false,
      topic: { deduplicationSeconds: 7 },
    });
    const filter = { kind: ['paid'] };
    expect(await cutOnce(() => topics.putSubscription(topic, queue, filter))).toMatchObject({
      created: true,
      subscription: { queue, filter },
    });
    expect(await cutOnce(() => topics.putSubscription(topic, queue, null))).toMatchObject({
      created: false,
      subscription: { queue, filter: null },
    });
    await cutOnce(() => topics.deleteSubscription(topic, queue));
    expect((await topics.get(topic)).subscriptions).toEqual([]);
    await cutOnce(() => topics.delete(topic));
    await expect(topics.get(topic)).rejects.toMatchObject({ code: 'topic-not-found' });
  });

  it('a schedule is created, and said to be', async () => {
    const schedules = new ScheduleRepository(store.database);
    const { name } = await createQueue(direct);
    const definition = { queue: name, everySeconds: 60, message: MESSAGE, enabled: true, missed: 'last' as const };
    expect(await cutOnce(() => schedules.put(name, definition))).toMatchObject({ created: true });
    expect(await cutOnce(() => schedules.put(name, { ...definition, everySeconds: 90 }))).toMatchObject({
      created: false,
      schedule: { everySeconds: 90 },
    });
  });

  it('a schedule is deleted, and said to be', async () => {
    const schedules = new ScheduleRepository(store.database);
    const { name } = await createQueue(direct);
    await schedules.put(name, { queue: name, everySeconds: 60, message: MESSAGE, enabled: true, missed: 'last' });
    await cutOnce(() => schedules.delete(name));
    await expect(schedules.get(name)).rejects.toMatchObject({ code: 'schedule-not-found' });
  });
});

describe('a deletion whose COMMIT got no answer leaves alone what somebody has made since:', () => {
  const START = 1_800_000_000_000;

  /** Deletes it a second after it was made, with a lost answer. Makes it again before the retry. */
  async function deleteOnce(
    make: () => Promise<unknown>,
    remove: (database: Database) => Promise<void>,
  ): Promise<void> {
    direct.at(START);
    await make();
    direct.at(START + 1000);
    await remove(losingAnswers(direct.database, async () => void (await make())));
    direct.at(undefined);
  }

  it('an API key', async () => {
    const keys = new ApiKeyRepository(direct.database);
    const key = { name: 'twice', scopes: ['read' as const], patterns: [], messagesPerSecond: null, longPolls: null };
    await deleteOnce(
      () => keys.create(key),
      (database) => new ApiKeyRepository(database).revoke(key.name),
    );
    expect(await keys.get(key.name)).toMatchObject({ createdAt: START + 1000 });
  });

  it('a schedule', async () => {
    const schedules = new ScheduleRepository(direct.database);
    const { name } = await createQueue(direct);
    const definition = { queue: name, everySeconds: 60, message: MESSAGE, enabled: true, missed: 'last' as const };
    await deleteOnce(
      () => schedules.put(name, definition),
      (database) => new ScheduleRepository(database).delete(name),
    );
    expect(await schedules.get(name)).toMatchObject({ createdAt: START + 1000 });
  });

  it('a subscription', async () => {
    const { topics } = direct;
    const { name: queue } = await createQueue(direct);
    await topics.put('twice');
    await deleteOnce(
      () => topics.putSubscription('twice', queue, null),
      (database) => new TopicRepository(database).deleteSubscription('twice', queue),
    );
    expect(await topics.getSubscription('twice', queue)).toMatchObject({ createdAt: START + 1000 });
  });
});
