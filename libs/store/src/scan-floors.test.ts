import { describe, expect, test } from 'vitest';
import { type Place, ScanFloors } from './scan-floors.js';

const QUEUE = 7;
const look = (begunAt: number, databaseTime: number, seen: Place[] = []) => ({
  begunAt,
  databaseTime,
  seen,
  isWhole: true,
  taken: 0,
});

describe('a floor', () => {
  test('follows what looks see, a tenth of a second behind, and the time where they see nothing', () => {
    const floors = new ScanFloors();
    floors.endLook(QUEUE, look(floors.now(), 10_000, [{ priorityRank: 5, availableAt: 9000 }]));
    expect(floors.of(QUEUE)).toEqual(new Map([[5, 8900]]));
    floors.endLook(QUEUE, look(floors.now(), 20_000));
    expect(floors.of(QUEUE)).toEqual(new Map([[5, 19_900]]));
  });

  test('that was lowered while a look was under way is not raised by it: it may not have seen why', () => {
    const floors = new ScanFloors();
    floors.endLook(QUEUE, look(floors.now(), 10_000, [{ priorityRank: 5, availableAt: 9900 }]));
    const begunAt = floors.now();
    floors.lower(QUEUE, { priorityRank: 0, availableAt: 9000 });
    floors.lower(QUEUE, { priorityRank: 5, availableAt: 8000 });
    floors.endLook(QUEUE, look(begunAt, 11_000, [{ priorityRank: 5, availableAt: 10_500 }]));
    expect(floors.of(QUEUE)).toEqual(
      new Map([
        [5, 7999],
        [0, 8999],
      ]),
    );
    floors.endLook(QUEUE, look(floors.now(), 12_000, [{ priorityRank: 0, availableAt: 9000 }]));
    expect(floors.of(QUEUE)?.get(0)).toBe(8999);
  });

  test('behind the last rank of a look that found enough stays where it is', () => {
    const floors = new ScanFloors();
    floors.endLook(QUEUE, look(floors.now(), 10_000, [{ priorityRank: 5, availableAt: 9000 }]));
    floors.endLook(QUEUE, {
      ...look(floors.now(), 20_000, [{ priorityRank: 3, availableAt: 15_000 }]),
      isWhole: false,
    });
    expect(floors.of(QUEUE)?.get(5)).toBe(8900);
  });
});

describe('rescans', () => {
  test('of all queues together run one at a time, and rest for twenty times what the last one took', async () => {
    const floors = new ScanFloors();
    floors.endLook(QUEUE, look(floors.now(), 10_000));
    floors.endLook(8, look(floors.now(), 10_000));
    expect(floors.isRescanDue(QUEUE, true)).toBe(true);
    const rescan = floors.rescan(QUEUE, () => new Promise((resolve) => setTimeout(resolve, 20)));
    expect(floors.isRescanDue(8, true)).toBe(false);
    await rescan;
    expect(floors.isRescanDue(8, true)).toBe(false);
  });
});
