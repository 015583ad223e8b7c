import { RowmqError } from '@rowmq/contract';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Scrapes } from './scrapes.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('each scrape gets its own answer, and no timer is left behind', async () => {
  const asked: number[] = [];
  const scrapes = new Scrapes((id) => asked.push(id));
  const answers = [scrapes.ask(), scrapes.ask()];
  expect(vi.getTimerCount()).toBe(2);
  scrapes.answer(asked[1] as number, 'second');
  scrapes.answer(asked[0] as number, 'first');
  expect(await Promise.all(answers)).toEqual(['first', 'second']);
  expect(vi.getTimerCount()).toBe(0);
});

test('a scrape without an answer in time is refused, with a time to retry', async () => {
  const asked: number[] = [];
  const scrapes = new Scrapes((id) => asked.push(id));
  const refusal = scrapes.ask().catch((error: unknown) => error);
  await vi.advanceTimersByTimeAsync(5000);
  expect(await refusal).toBeInstanceOf(RowmqError);
  expect(await refusal).toMatchObject({ code: 'overloaded', retryAfterSeconds: 1 });
  scrapes.answer(asked[0] as number, 'late');
});
