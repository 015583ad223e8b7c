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
