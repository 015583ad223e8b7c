import { AuditRepository, type AuditRow } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openStore, type TestStore } from '../support/store.js';

const DAY_MS = 86_400_000;
let store: TestStore;
let audit: AuditRepository;
beforeAll(async () => {
  store = await openStore();
  audit = new AuditRepository(store.database);
});
afterAll(() => store.close());

function row(action: string, more: Partial<AuditRow> = {}): AuditRow {
  const path = `/v1/admin/${action}`;
  return { action, path, status: 200, problem: null, key: 'k', address: '::1', requestId: 'r', changes: null, ...more };
}

describe('the audit', () => {
  test('keeps the last days, however many rows a batch has', async () => {
    const now = Date.now();
    store.at(now - 3 * DAY_MS);
    await audit.add(Array.from({ length: 5 }, (_, index) => row(`old-${index}`)));
    store.at(now - DAY_MS);
    await audit.add([row('recent', { changes: '{"a":{"to":"é"}}' })]);
    store.at(now);
    expect(await audit.prune(2, 3)).toBe(3);
    expect(await audit.prune(2, 3)).toBe(2);
    expect(await audit.prune(2, 3)).toBe(0);
    const { rows, isLast } = await audit.list({ limit: 10 });
    expect(rows).toMatchObject([{ action: 'recent', at: now - DAY_MS, changes: '{"a":{"to":"é"}}' }]);
    expect(isLast).toBe(true);
  });

  test('keeps a million rows at most', async () => {
    await audit.add([row('first')]);
    const [first] = (await audit.list({ limit: 1 })).rows;
    await store.database.write('UPDATE audit SET id = ? WHERE id = ?', [Number(first!.id) + 1_000_001, first!.id]);
    await audit.prune(1000, 100);
    expect((await audit.list({ limit: 10 })).rows.map(({ action }) => action)).toEqual(['first']);
  });

  test('finds actions by each filter', async () => {
    await audit.add([
      row('putQueue', { path: '/v1/admin/queues/orders_x', key: 'a' }),
      row('putQueue', { path: '/v1/admin/queues/orders%2Fx', key: 'b', problem: 'forbidden', status: 403 }),
    ]);
    const found = async (query: object): Promise<(string | null)[]> =>
      (await audit.list({ limit: 10, action: 'putQueue', ...query })).rows.map(({ key }) => key);
    expect(await found({})).toEqual(['b', 'a']);
    expect(await found({ key: 'a' })).toEqual(['a']);
    expect(await found({ refused: 'true' })).toEqual(['b']);
    expect(await found({ refused: 'false' })).toEqual(['a']);
    // Neither % nor _ is a wildcard.
    expect(await found({ path: '/v1/admin/queues/orders%' })).toEqual(['b']);
    expect(await found({ path: '/v1/admin/queues/orders_' })).toEqual(['a']);
    expect(await found({ from: new Date(Date.now() + DAY_MS).toISOString() })).toEqual([]);
    expect(await found({ to: new Date(Date.now() - 2 * DAY_MS).toISOString() })).toEqual([]);
  });
});
