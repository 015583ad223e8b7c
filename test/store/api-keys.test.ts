import { LIMITS, type RowmqError } from '@rowmq/contract';
import { ApiKeyRepository, digestOf, isSameDigest, keyIdOf } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { losingAnswers } from '../support/lost-answer.js';
import { openStore, type TestStore } from '../support/store.js';

let store: TestStore;
let keys: ApiKeyRepository;
beforeAll(async () => {
  store = await openStore();
  keys = new ApiKeyRepository(store.database);
});
afterAll(() => store.close());

const SHOP = {
  name: 'shop',
  scopes: ['enqueue' as const, 'dequeue' as const],
  patterns: ['orders.*', 'mail'],
  messagesPerSecond: 100,
  longPolls: null,
};

describe('API keys', () => {
  test('are found by the id in their secrets, and hold no more than the digest of it', async () => {
    const { key, secret } = await keys.create(SHOP);
    expect(key).toMatchObject({ ...SHOP, expiresAt: null, lastUsedAt: null, oldUntil: null });
    expect(keyIdOf(secret)).toBe(key.id);
    const { keys: all, now } = await keys.readAll();
    expect(all).toEqual([key]);
    expect(isSameDigest(digestOf(secret), key.digest)).toBe(true);
    expect(now).toBeGreaterThanOrEqual(key.createdAt);
    const stored = JSON.stringify(await store.database.read('SELECT * FROM api_key'));
    expect(stored).not.toContain(secret);
    expect(stored).not.toContain(secret.slice(-43));
    await expect(keys.create(SHOP)).rejects.toMatchObject({ code: 'key-exists' });
  });

  test('have two valid secrets after a rotation, and one after the next', async () => {
    const { key: created, secret: first } = await keys.create({ ...SHOP, name: 'rotated' });
    const { key, secret: second } = await keys.rotate('rotated', 60);
    expect(keyIdOf(second)).toBe(created.id);
    expect(isSameDigest(digestOf(second), key.digest)).toBe(true);
    expect(isSameDigest(digestOf(first), key.oldDigest as Buffer)).toBe(true);
    expect(key.oldUntil).toBeGreaterThan(created.createdAt + 59_000);
    const { key: last } = await keys.rotate('rotated', 0);
    expect(last).toMatchObject({ oldDigest: null, oldUntil: null });
    await expect(keys.rotate('nobody', 0)).rejects.toMatchObject({ code: 'key-not-found' });
  });

  test('have limits, and a change leaves those that it does not name', async () => {
    await keys.create({ ...SHOP, name: 'limited' });
    expect(await keys.putLimits('limited', { longPolls: 5 })).toMatchObject({ messagesPerSecond: 100, longPolls: 5 });
    expect(await keys.putLimits('limited', {})).toMatchObject({ messagesPerSecond: 100, longPolls: 5 });
    await keys.putLimits('limited', { messagesPerSecond: null });
    const read = (await keys.readAll()).keys.find(({ name }) => name === 'limited');
    expect(read).toMatchObject({ messagesPerSecond: null, longPolls: 5 });
    await expect(keys.putLimits('nobody', { longPolls: 5 })).rejects.toMatchObject({ code: 'key-not-found' });
  });

  test('cannot be created expired', async () => {
    const expiresAt = new Date(Date.now() - 1000).toISOString();
    await expect(keys.create({ ...SHOP, name: 'late', expiresAt })).rejects.toMatchObject({ code: 'invalid-request' });
  });

  test('are listed by name, page by page, and note when they were used', async () => {
    for (const name of ['list-a', 'list-b', 'list-c']) await keys.create({ ...SHOP, name });
    const page = await keys.list('list-', 2);
    expect(page.keys.map(({ name }) => name)).toEqual(['list-a', 'list-b']);
    expect(page.isLast).toBe(false);
    await keys.noteUse(['list-a', 'list-c', 'gone']);
    expect((await keys.get('list-a')).lastUsedAt).toBeGreaterThan(0);
    expect((await keys.get('list-b')).lastUsedAt).toBeNull();
  });

  test('are gone once they are revoked', async () => {
    await keys.create({ ...SHOP, name: 'revoked' });
    await keys.revoke('revoked');
    await expect(keys.get('revoked')).rejects.toMatchObject({ code: 'key-not-found' });
    await expect(keys.revoke('revoked')).rejects.toMatchObject({ code: 'key-not-found' });
  });

  test('never exceed their limit, however many are created at the same moment', async () => {
    const other = await openStore({ on: store.url });
    const { keys: there } = await keys.readAll();
    const fillers = Array.from({ length: LIMITS.keys - there.length - 1 }, (_, index) => `filler-${index}`);
    await store.database.write(
      `INSERT INTO api_key (name, id, secret_digest, scopes, patterns, created_at) VALUES ${fillers.map((name) => `('${name}', '${name}', '', 'read', '', 1)`).join(',')}`,
    );
    const creators = [keys, new ApiKeyRepository(other.database)];
    const outcomes = await Promise.allSettled(
      Array.from({ length: 8 }, async (_, index) => creators[index % 2]!.create({ ...SHOP, name: `last-${index}` })),
    );
    await other.close();
    const refusals = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason as RowmqError] : []));
    expect(refusals.map(({ code }) => code)).toEqual(Array.from({ length: 7 }, () => 'invalid-request'));
    expect(refusals[0]?.message).toContain('There are 1000 API keys');
    expect((await keys.readAll()).keys).toHaveLength(LIMITS.keys);
    // The last one that there is room for is not refused because of itself.
    await keys.revoke('filler-0');
    const lossy = new ApiKeyRepository(losingAnswers(store.database));
    expect((await lossy.create({ ...SHOP, name: 'thousandth' })).key).toMatchObject({ name: 'thousandth' });
    await store.database.write("DELETE FROM api_key WHERE name LIKE 'filler-%'");
  });
});
