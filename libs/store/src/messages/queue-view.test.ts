import { describe, expect, test } from 'vitest';
import { QueueView } from './queue-view.js';

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
    expect([...floors.keys()].toSorted()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect([floors.get(3), floors.get(4)]).toEqual([3900, 4900]);

    const seen = [{ priorityRank: 7, availableAt: 5500 }];
    view.endPeek({ ...EMPTY, databaseTime: 6000, seen });
    expect([...(view.floors as Map<number, number>)].toSorted()).toEqual([
      [3, 5900],
      [7, 5400],
    ]);
  });

  test('still reads everything after a hint if no peek has read the queue', () => {
    const view = new QueueView();
    view.expectMore();
    expect(view.floors).toBeUndefined();
  });
});
