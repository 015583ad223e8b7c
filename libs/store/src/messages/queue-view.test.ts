import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type IndexPosition, QueueView, QueueViews } from './queue-view.js';

const QUEUE = 7;
const peek = (begunAt: number, databaseTime: number, seen: IndexPosition[] = []) => ({
  begunAt,
  databaseTime,
  seen,
  isWhole: true,
});

// The clock stands still unless a test moves it.
beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
afterEach(() => void vi.useRealTimers());

describe('a floor', () => {
  test('stays 100 ms below the first delivery of a peek, or below the time of an empty peek', () => {
    const view = new QueueView();
    view.endPeek(peek(0, 10_000, [{ priorityRank: 5, availableAt: 9000 }]));
    expect(view.floors).toEqual(new Map([[5, 8900]]));
    view.endPeek(peek(0, 20_000));
    expect(view.floors).toEqual(new Map([[5, 19_900]]));
  });

  test('is never raised above the first of several deliveries, and never lowered by a peek', () => {
    const view = new QueueView();
    view.endPeek(
      peek(0, 10_000, [
        { priorityRank: 5, availableAt: 9000 },
        { priorityRank: 5, availableAt: 9500 },
      ]),
    );
    expect(view.floors).toEqual(new Map([[5, 8900]]));
    view.endPeek(peek(0, 11_000, [{ priorityRank: 5, availableAt: 8950 }]));
    expect(view.floors).toEqual(new Map([[5, 8900]]));
  });

  test('that was lowered during a peek is not raised by that peek', () => {
    const view = new QueueView();
    view.endPeek(peek(view.lowerings, 10_000, [{ priorityRank: 5, availableAt: 9900 }]));
    const begunAt = view.lowerings;
    view.lower({ priorityRank: 0, availableAt: 9000 });
    view.lower({ priorityRank: 5, availableAt: 8000 });
    view.endPeek(peek(begunAt, 11_000, [{ priorityRank: 5, availableAt: 10_500 }]));
    expect(view.floors).toEqual(
      new Map([
        [5, 7999],
        [0, 8999],
      ]),
    );
    view.endPeek(peek(view.lowerings, 12_000, [{ priorityRank: 0, availableAt: 9000 }]));
    expect(view.floors?.get(0)).toBe(8999);
  });

  test('remains after an empty first peek for deliveries that were stored leased before it', () => {
    const view = new QueueView();
    view.lower({ priorityRank: 4, availableAt: 10_000 });
    view.endPeek(peek(view.lowerings, 11_000));
    expect(view.floors).toEqual(new Map([[4, 10_900]]));
    view.lower({ priorityRank: 4, availableAt: 15_000 });
    expect(view.floors).toEqual(new Map([[4, 10_900]]));
  });

  test('does not move for a rank that the peek did not reach', () => {
    const view = new QueueView();
    view.endPeek(peek(0, 10_000, [{ priorityRank: 5, availableAt: 9000 }]));
    view.endPeek({ ...peek(0, 20_000, [{ priorityRank: 3, availableAt: 15_000 }]), isWhole: false });
    expect(view.floors?.get(5)).toBe(8900);
  });

  test('is given up once no peek has seen a delivery of its rank for a minute', () => {
    const view = new QueueView();
    view.endPeek(peek(0, 10_000, [{ priorityRank: 5, availableAt: 9000 }]));
    vi.advanceTimersByTime(60_000);
    view.endPeek(peek(0, 70_000));
    expect(view.floors).toEqual(new Map([[5, 69_900]]));
    vi.advanceTimersByTime(1);
    view.endPeek(peek(0, 70_001));
    expect(view.floors).toEqual(new Map());
  });
});

describe('a first peek', () => {
  const seen = [{ priorityRank: 5, availableAt: 9000 }];

  test('reads everything, also if a delivery arrived before it', () => {
    const view = new QueueView();
    expect(view.floors).toBeUndefined();
    view.lower({ priorityRank: 5, availableAt: 9000 });
    expect(view.floors).toBeUndefined();
  });

  test('that reaches its limit leaves the ranks behind it to the next peek, from the left edge of the index', () => {
    const view = new QueueView();
    view.endPeek({ ...peek(0, 10_000, seen), isWhole: false });
    expect(view.floors).toEqual(new Map([[5, 8900], ...[6, 7, 8, 9].map((rank): [number, number] => [rank, 0])]));
    view.endPeek({ ...peek(0, 11_000, seen), isWhole: false });
    expect(view.floors?.get(7)).toBe(0);
  });

  test('that reaches its limit is made good by a later one, which drops the unused ranks', () => {
    const view = new QueueView();
    view.endPeek({ ...peek(0, 10_000, seen), isWhole: false });
    view.endPeek(peek(0, 11_000, [...seen, { priorityRank: 8, availableAt: 500 }]));
    expect([...(view.floors?.keys() ?? [])]).toEqual([5, 8]);
  });
});

describe('views', () => {
  test('keep one view for each queue until it is forgotten', () => {
    const views = new QueueViews();
    const view = views.of(QUEUE);
    expect(views.of(QUEUE)).toBe(view);
    expect(views.of(8)).not.toBe(view);
    views.forget(QUEUE);
    expect(views.of(QUEUE)).not.toBe(view);
  });

  test('are bounded in number, whatever the number of queues', () => {
    const views = new QueueViews();
    const view = views.of(0);
    for (let queue = 1; queue < 10_000; queue += 1) views.of(queue);
    expect(views.of(0)).toBe(view);
    views.of(10_000);
    expect(views.of(0)).not.toBe(view);
  });
});

describe('rescans', () => {
  test('run one at a time for all queues, and pause for twenty times the duration of the last one', async () => {
    const views = new QueueViews();
    for (const queue of [QUEUE, 8]) views.of(queue);
    expect(views.isRescanDue(QUEUE, true)).toBe(true);
    let end = (): void => undefined;
    const rescan = views.rescan([QUEUE], () => new Promise<void>((resolve) => (end = resolve)));
    vi.advanceTimersByTime(20);
    expect(views.isRescanDue(8, true)).toBe(false);
    end();
    await rescan;
    vi.advanceTimersByTime(399);
    expect(views.isRescanDue(8, true)).toBe(false);
    vi.advanceTimersByTime(1);
    expect(views.isRescanDue(8, true)).toBe(true);
  });

  test('in a queue that has messages are due at most four times a second', async () => {
    const views = new QueueViews();
    views.of(QUEUE);
    expect(views.isRescanDue(QUEUE, false)).toBe(false);
    vi.advanceTimersByTime(250);
    expect(views.isRescanDue(QUEUE, false)).toBe(true);
    await views.rescan([QUEUE], () => Promise.resolve());
    vi.advanceTimersByTime(249);
    expect(views.isRescanDue(QUEUE, false)).toBe(false);
    vi.advanceTimersByTime(1);
    expect(views.isRescanDue(QUEUE, false)).toBe(true);
  });

  test('that fail count as well', async () => {
    const views = new QueueViews();
    views.of(QUEUE);
    const failing = views.rescan([QUEUE], async () => {
      vi.advanceTimersByTime(10);
      await Promise.reject(new Error('the database is gone'));
    });
    await expect(failing).rejects.toThrow('the database is gone');
    vi.advanceTimersByTime(199);
    expect(views.isRescanDue(QUEUE, true)).toBe(false);
    vi.advanceTimersByTime(1);
    expect(views.isRescanDue(QUEUE, true)).toBe(true);
  });
});

const EMPTY = { begunAt: 0, seen: [], isWhole: true };

describe('the view of a queue', () => {
  test('has no priority in use after a peek that found nothing', () => {
    const view = new QueueView();
    view.endPeek({ ...EMPTY, databaseTime: 5000 });
    expect(view.floors?.size).toBe(0);
  });

  test('has every priority in use for one peek after a hint, from the last whole peek on', () => {
    const view = new QueueView();
    view.endPeek({ ...EMPTY, databaseTime: 5000, seen: [{ priorityRank: 3, availableAt: 4000 }] });
    view.expectMore();
    const floors = view.floors as Map<number, number>;
    expect([...floors.keys()].toSorted((one, other) => one - other)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect([floors.get(3), floors.get(4)]).toEqual([3900, 4900]);

    const seen = [{ priorityRank: 7, availableAt: 5500 }];
    view.endPeek({ ...EMPTY, begunAt: view.lowerings, databaseTime: 6000, seen });
    expect([...(view.floors as Map<number, number>)].toSorted(([one], [other]) => one - other)).toEqual([
      [3, 5900],
      [7, 5400],
    ]);
  });

  test('still reads everything after a hint if no peek has read the queue', () => {
    const view = new QueueView();
    view.expectMore();
    expect(view.floors).toBeUndefined();
  });

  test('keeps every priority in use if the hint came while a peek was under way', () => {
    const view = new QueueView();
    view.endPeek({ ...EMPTY, databaseTime: 5000 });
    const begunAt = view.lowerings;
    view.expectMore();
    view.endPeek({ ...EMPTY, begunAt, databaseTime: 6000 });
    expect(view.floors?.get(4)).toBe(4900);
  });

  test('looks at every priority again after 200 ms, from the last peek that read it', () => {
    const view = new QueueView();
    view.expectMore();
    expect(view.isWideDue).toBe(false);
    vi.advanceTimersByTime(200);
    expect(view.isWideDue).toBe(true);
    view.endPeek({ ...EMPTY, databaseTime: 5000, seen: [{ priorityRank: 3, availableAt: 4000 }], isWhole: false });
    view.expectMore();
    const floors = view.floors as Map<number, number>;
    expect([floors.get(2), floors.get(4)]).toEqual([4900, 0]);
  });
});
