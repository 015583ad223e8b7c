import { describe, expect, test } from 'vitest';
import { type IndexPosition, ScanFloors } from './scan-floors.js';

const QUEUE = 7;
const look = (begunAt: number, databaseTime: number, seen: IndexPosition[] = []) => ({
  begunAt,
  databaseTime,
  seen,
  isWhole: true,
  taken: 1,
});

describe('a floor', () => {
  test('follows what peeks see, a tenth of a second behind, and the time where they see nothing', () => {
    const floors = new ScanFloors();
    floors.endPeek(QUEUE, look(floors.now(), 10_000, [{ priorityRank: 5, availableAt: 9000 }]));
    expect(floors.of(QUEUE)).toEqual(new Map([[5, 8900]]));
    floors.endPeek(QUEUE, look(floors.now(), 20_000));
    expect(floors.of(QUEUE)).toEqual(new Map([[5, 19_900]]));
  });

  test('that was lowered while a look was under way is not raised by it: it may not have seen why', () => {
    const floors = new ScanFloors();
    floors.endPeek(QUEUE, look(floors.now(), 10_000, [{ priorityRank: 5, availableAt: 9900 }]));
    const begunAt = floors.now();
    floors.lower(QUEUE, { priorityRank: 0, availableAt: 9000 });
    floors.lower(QUEUE, { priorityRank: 5, availableAt: 8000 });
    floors.endPeek(QUEUE, look(begunAt, 11_000, [{ priorityRank: 5, availableAt: 10_500 }]));
    expect(floors.of(QUEUE)).toEqual(
      new Map([
        [5, 7999],
        [0, 8999],
      ]),
    );
    floors.endPeek(QUEUE, look(floors.now(), 12_000, [{ priorityRank: 0, availableAt: 9000 }]));
    expect(floors.of(QUEUE)?.get(0)).toBe(8999);
  });

  test('behind the last rank of a look that found enough stays where it is', () => {
    const floors = new ScanFloors();
    floors.endPeek(QUEUE, look(floors.now(), 10_000, [{ priorityRank: 5, availableAt: 9000 }]));
    floors.endPeek(QUEUE, {
      ...look(floors.now(), 20_000, [{ priorityRank: 3, availableAt: 15_000 }]),
      isWhole: false,
    });
    expect(floors.of(QUEUE)?.get(5)).toBe(8900);
  });
});

describe('a first look that found enough before it came to the end', () => {
  const seen = [{ priorityRank: 5, availableAt: 9000 }];

  test('leaves what is behind to the next one, from the left edge on', () => {
    const floors = new ScanFloors();
    floors.endPeek(QUEUE, { ...look(floors.now(), 10_000, seen), isWhole: false });
    expect(floors.of(QUEUE)).toEqual(new Map([[5, 8900], ...[6, 7, 8, 9].map((rank): [number, number] => [rank, 0])]));
    floors.endPeek(QUEUE, { ...look(floors.now(), 11_000, seen), isWhole: false });
    expect(floors.of(QUEUE)?.get(7)).toBe(0);
  });

  test('costs the others nothing once there was one that came to the end', () => {
    const floors = new ScanFloors();
    floors.endPeek(QUEUE, { ...look(floors.now(), 10_000, seen), isWhole: false });
    floors.endPeek(QUEUE, look(floors.now(), 11_000, [...seen, { priorityRank: 8, availableAt: 500 }]));
    expect([...(floors.of(QUEUE)?.keys() ?? [])]).toEqual([5, 8]);
  });
});

describe('what a look saw beyond its claim', () => {
  const at = (availableAt: number, priorityRank = 5): IndexPosition => ({ priorityRank, availableAt });
  const positions = [at(100), at(200), at(200), at(200), at(300), at(50, 6)];

  function afterPeek({ meanwhile, ...how }: { isWhole?: boolean; meanwhile?: IndexPosition } = {}): ScanFloors {
    const floors = new ScanFloors();
    const finished = { databaseTime: 1000, isWhole: false, ...how };
    floors.endPeek(QUEUE, { ...finished, begunAt: floors.now(), seen: [], taken: 1 });
    const begunAt = floors.now();
    floors.beginPeek(QUEUE);
    if (meanwhile !== undefined) floors.lower(QUEUE, meanwhile);
    const taken = floors.endPeek(QUEUE, { ...finished, begunAt, seen: positions, taken: 1 });
    expect(taken).toEqual({ positions: [at(100)], ties: 0 });
    return floors;
  }

  test('is handed out in its order, with how many more stand where the last one stands', () => {
    const floors = afterPeek();
    expect(floors.useReadAhead(QUEUE, 1)).toEqual({ positions: [at(200)], ties: 2 });
    expect(floors.useReadAhead(QUEUE, 3)).toEqual({ positions: [at(200), at(200), at(300)], ties: 0 });
    expect(floors.useReadAhead(QUEUE, 1)).toEqual({ positions: [at(50, 6)], ties: undefined });
  });

  test('ends where the queue ends if the look saw all of it', () => {
    expect(afterPeek({ isWhole: true }).useReadAhead(QUEUE, 5)).toMatchObject({ ties: 0 });
  });

  test('is of no use to a claim that wants more, nor to any after it', () => {
    const floors = afterPeek();
    expect(floors.useReadAhead(QUEUE, 6)).toBeUndefined();
    expect(floors.useReadAhead(QUEUE, 1)).toBeUndefined();
  });

  test('is forgotten once something comes before its end, though not for what comes behind', () => {
    const floors = afterPeek();
    floors.lower(QUEUE, at(51, 6));
    expect(floors.useReadAhead(QUEUE, 1)).toBeDefined();
    floors.lower(QUEUE, at(1000, 5));
    expect(floors.useReadAhead(QUEUE, 1)).toBeUndefined();
  });

  test('is not kept where that came while it looked', () => {
    expect(afterPeek({ meanwhile: at(1000, 0) }).useReadAhead(QUEUE, 1)).toBeUndefined();
    expect(afterPeek({ meanwhile: at(1000, 6) }).useReadAhead(QUEUE, 1)).toBeDefined();
  });

  test('is looked for only in deep queues, and not for a while where it was forgotten before anybody took of it', () => {
    const floors = afterPeek();
    expect(floors.beginPeek(QUEUE).isDeep).toBe(true);
    floors.useReadAhead(QUEUE, 1);
    floors.lower(QUEUE, at(1000, 0));
    expect(floors.beginPeek(QUEUE).isDeep).toBe(true);
    const unused = afterPeek();
    unused.lower(QUEUE, at(1000, 0));
    expect(unused.beginPeek(QUEUE).isDeep).toBe(false);
    const shallow = new ScanFloors();
    shallow.endPeek(QUEUE, { begunAt: 0, databaseTime: 1000, seen: positions.slice(0, 3), isWhole: true, taken: 1 });
    expect(shallow.beginPeek(QUEUE).isDeep).toBe(false);
  });

  test('is good for a tenth of a second', async () => {
    const floors = afterPeek();
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(floors.useReadAhead(QUEUE, 1)).toBeUndefined();
  });
});

describe('rescans', () => {
  test('of all queues together run one at a time, and rest for twenty times what the last one took', async () => {
    const floors = new ScanFloors();
    floors.endPeek(QUEUE, look(floors.now(), 10_000));
    floors.endPeek(8, look(floors.now(), 10_000));
    expect(floors.isRescanDue(QUEUE, true)).toBe(true);
    const rescan = floors.rescan(QUEUE, () => new Promise((resolve) => setTimeout(resolve, 20)));
    expect(floors.isRescanDue(8, true)).toBe(false);
    await rescan;
    expect(floors.isRescanDue(8, true)).toBe(false);
  });
});
