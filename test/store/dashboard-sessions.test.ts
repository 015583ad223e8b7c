import { ApiKeyRepository, digestOf, SessionRepository, type StoredSession } from '@rowmq/store';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { openStore, type TestStore } from '../support/store.js';

/* Logins to the dashboard, as the table `dashboard_session` has them. */

const T0 = 1_800_000_000_000;
const SECOND = 1000;
const HOUR = 3600;
/** Sessions that one key may have. */
const MOST = 100;

let store: TestStore;
/** Another broker on the same database. */
let other: TestStore;
let sessions: SessionRepository;

beforeAll(async () => {
  store = await openStore();
  other = await openStore({ on: store.url });
  sessions = new SessionRepository(store.database);
});
afterAll(async () => {
  await other.close();
  await store.close();
});
beforeEach(async () => {
  await store.at(T0).database.write('DELETE FROM dashboard_session');
});

let number = 0;
function newSession(keyDigest = 'digest-of-a-key', keyId: string | null = 'key'): StoredSession {
  number += 1;
  return { digest: digestOf(`cookie ${number}`).toString(), keyId, keyDigest };
}

async function digests(): Promise<string[]> {
  const rows = await store.database.read<{ digest: string }>('SELECT digest FROM dashboard_session ORDER BY digest');
  return rows.map(({ digest }) => digest);
}

test('a session is found by every broker until the millisecond in which it ends', async () => {
  const [session, ofSettings] = [newSession(), newSession('digest-of-the-setting', null)];
  await sessions.add(session, HOUR);
  await sessions.add(ofSettings, HOUR);
  other.at(T0 + HOUR * SECOND - 1);
  const elsewhere = new SessionRepository(other.database);
  expect(await elsewhere.find(session.digest)).toEqual(session);
  expect(await elsewhere.find(ofSettings.digest)).toEqual(ofSettings);
  other.at(T0 + HOUR * SECOND);
  expect(await elsewhere.find(session.digest)).toBeUndefined();
  expect(await sessions.find(newSession().digest)).toBeUndefined();
});

test('a logout ends one session, and may be repeated', async () => {
  const [left, stays] = [newSession(), newSession()];
  for (const one of [left, stays]) await sessions.add(one, HOUR);
  expect(await sessions.remove(left.digest)).toBe(true);
  expect(await sessions.remove(left.digest)).toBe(false);
  expect(await sessions.find(left.digest)).toBeUndefined();
  expect(await sessions.find(stays.digest)).toEqual(stays);
});

test('a login removes the sessions that have expired, and no others', async () => {
  const [short, long] = [newSession('one'), newSession('one')];
  await sessions.add(short, 60);
  await sessions.add(long, 61);
  store.at(T0 + 60 * SECOND);
  const last = newSession('another');
  await sessions.add(last, HOUR);
  expect(await digests()).toEqual([long.digest, last.digest].toSorted());
});

test('the hundred-and-first login of a key ends its oldest session, and none of another key', async () => {
  const neighbour = newSession('of-a-neighbour');
  await sessions.add(neighbour, HOUR);
  const all = Array.from({ length: MOST + 1 }, () => newSession());
  for (const [index, one] of all.entries()) {
    store.at(T0 + index);
    await sessions.add(one, HOUR);
    expect(await digests()).toHaveLength(1 + Math.min(index + 1, MOST));
  }
  const left = [neighbour, ...all.slice(1)].map(({ digest }) => digest);
  expect(await digests()).toEqual(left.toSorted());
});

test('logins of a key at the same moment end its oldest sessions only, and never each other', async () => {
  const old = Array.from({ length: MOST }, () => newSession());
  for (const [index, one] of old.entries()) {
    store.at(T0 + index);
    await sessions.add(one, HOUR);
  }
  other.at(T0 + SECOND);
  store.at(T0 + SECOND);
  const brokers = [sessions, new SessionRepository(other.database)];
  const fresh = Array.from({ length: 20 }, () => newSession());
  await Promise.all(fresh.map(async (one, index) => brokers[index % 2]?.add(one, HOUR)));
  const left = new Set(await digests());
  expect(fresh.filter(({ digest }) => !left.has(digest))).toEqual([]);
  expect(left).toEqual(new Set([...old.slice(fresh.length), ...fresh].map(({ digest }) => digest)));
});

test('a session names the secret of its login, so that it ends with a revoked or rotated key', async () => {
  const keys = new ApiKeyRepository(store.database);
  const limits = { messagesPerSecond: null, longPolls: null };
  const { key, secret } = await keys.create({ name: 'ada', scopes: ['read'], patterns: [], ...limits });
  const session = newSession(digestOf(secret).toString(), key.id);
  await sessions.add(session, HOUR);
  const isOfALiveSecret = async (): Promise<boolean> => {
    const found = await sessions.find(session.digest);
    const { keys: all } = await keys.readAll();
    const own = all.find(({ id }) => id === found?.keyId);
    return [own?.digest, own?.oldDigest].some((digest) => digest?.toString() === found?.keyDigest);
  };
  expect(await isOfALiveSecret()).toBe(true);
  await keys.rotate('ada', 60);
  expect(await isOfALiveSecret()).toBe(true);
  await keys.rotate('ada', 60);
  expect(await isOfALiveSecret()).toBe(false);

  const { key: again, secret: newer } = await keys.rotate('ada', 0);
  await sessions.add({ ...newSession(digestOf(newer).toString(), again.id), digest: 'x' }, HOUR);
  await keys.revoke('ada');
  expect((await keys.readAll()).keys).toEqual([]);
  expect((await sessions.find('x'))?.keyId).toBe(again.id);
});
