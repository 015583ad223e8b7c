import { afterEach, expect, test, vi } from 'vitest';
import type { Database } from '../database/database.js';
import { QueueRepository } from './queue.repository.js';

afterEach(() => {
  vi.useRealTimers();
});

test('the repository caches queues for a second, and at most ten thousand of them', async () => {
  vi.useFakeTimers();
  const read = vi.fn<Database['read']>(async <T>(_sql: string, values: readonly unknown[] = []) =>
    [values[0]].flat().map((name) => ({ id: 1, name, paused: 0, createdAt: 0 }) as T),
  );
  const queues = new QueueRepository({ read } as unknown as Database);
  expect(await queues.get('first')).toMatchObject({ name: 'first', paused: false });
  await queues.get('first');
  expect(read).toHaveBeenCalledOnce();
  vi.advanceTimersByTime(1000);
  await queues.get('first');
  expect(read).toHaveBeenCalledTimes(2);
  const others = Array.from({ length: 10_000 }, (_, index) => `other-${index}`);
  expect((await queues.getAll(others)).size).toBe(10_000);
  await queues.get('first');
  expect(read).toHaveBeenCalledTimes(4);
});

test('a queue is known while it is read again, and no longer once it is gone', async () => {
  vi.useFakeTimers();
  let rows: object[] = [{ id: 1, name: 'q', maxLongPolls: 1 }];
  const read = vi.fn<Database['read']>(async <T>() => rows as T[]);
  const queues = new QueueRepository({ read } as unknown as Database);
  await queues.get('q');
  queues.evict('q');
  expect(queues.peek('q')).toMatchObject({ maxLongPolls: 1 });
  for (const look of [() => queues.get('q'), () => queues.getAll(['q'])]) {
    const before = read.mock.calls.length;
    vi.advanceTimersByTime(1000);
    const again = look();
    expect(queues.peek('q')).toMatchObject({ maxLongPolls: 1 });
    await again;
    expect(read).toHaveBeenCalledTimes(before + 1);
  }
  rows = [];
  vi.advanceTimersByTime(1000);
  await queues.getAll(['q']);
  expect(queues.peek('q')).toBeUndefined();
});
