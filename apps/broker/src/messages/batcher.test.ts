import { setImmediate as turn } from 'node:timers/promises';
import { RowmqError } from '@rowmq/contract';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Batcher, type BatcherLimits } from './batcher.js';

/** A request of this many rows and bytes; it is answered with its own name. */
interface Request {
  name: string;
  rows?: number;
  bytes?: number;
  /** What becomes of it: refused by itself, or the death of every flight that it is in. */
  fate?: 'refused' | 'poison';
}

/** A flight that is under way, until the test lets it land or fails it. */
interface Flight {
  names: string[];
  land: () => void;
  fail: (error: Error) => void;
}

const LIMITS: BatcherLimits = {
  requests: 100,
  rows: 1000,
  bytes: 10_000,
  flights: 1,
  waitingRequests: 10_000,
  waitingBytes: 100_000,
};

/** A batcher whose flights land when the test says so. */
class Airfield {
  /** Every flight that took off, in order. */
  readonly departed: Flight[] = [];
  readonly landed: { rows: number; ms: number }[] = [];
  /** Requests that were carried out, as often as they were. */
  readonly carriedOut: string[] = [];
  readonly batcher: Batcher<Request, string>;

  constructor(limits: Partial<BatcherLimits> = {}, lanesApart = false) {
    this.batcher = new Batcher<Request, string>({
      fly: async (requests) =>
        new Promise((resolve, reject) => {
          let isOver = false;
          const land = (): void => {
            if (isOver) return;
            isOver = true;
            if (requests.some(({ fate }) => fate === 'poison')) {
              reject(new Error('poisoned'));
              return;
            }
            const done = requests.filter(({ fate }) => fate !== 'refused');
            this.carriedOut.push(...done.map(({ name }) => name));
            resolve(requests.map(({ name, fate }) => (fate === 'refused' ? new Error(`${name} refused`) : name)));
          };
          this.departed.push({ names: requests.map(({ name }) => name), land, fail: reject });
        }),
      weigh: ({ rows = 1, bytes = 1 }) => ({ rows, bytes }),
      limits: { ...LIMITS, ...limits },
      lanesApart,
      onFlight: (flight) => this.landed.push(flight),
    });
  }

  /** Submits a request; its outcome is its answer, or the message or code of its error. */
  submit(lane: string, request: Request | string): Promise<string> {
    const answer = this.batcher.submit(lane, typeof request === 'string' ? { name: request } : request);
    return answer.catch((error: unknown) => (error instanceof RowmqError ? error.code : (error as Error).message));
  }

  /** The flights that took off up to now, by the names of their requests. */
  async flights(): Promise<string[][]> {
    await turns();
    return this.departed.map(({ names }) => names);
  }

  /** Lands flight after flight until none is under way. */
  async landAll(): Promise<void> {
    for (let next = 0; ; next += 1) {
      await turns();
      const flight = this.departed[next];
      if (flight === undefined) return;
      flight.land();
    }
  }
}

/** Long enough for whatever is due to happen at once. */
async function turns(): Promise<void> {
  for (let count = 0; count < 3; count += 1) await turn();
}

function numbered(from: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${from}${index}`);
}

describe('a request', () => {
  test('that finds nothing under way flies in the same turn of the event loop, alone', async () => {
    const field = new Airfield();
    const answer = field.submit('q', 'lone');
    await turn();
    expect(field.departed.map((flight) => flight.names)).toEqual([['lone']]);
    field.departed[0]?.land();
    expect(await answer).toBe('lone');
  });

  test('flies with those that came in the same turn of the event loop', async () => {
    const field = new Airfield();
    for (const name of ['a', 'b', 'c']) void field.submit('q', name);
    await Promise.resolve();
    void field.submit('other', 'd');
    expect(await field.flights()).toEqual([['a', 'd', 'b', 'c']]);
  });

  test('that comes during a flight is in the next, with all that came meanwhile', async () => {
    const field = new Airfield();
    void field.submit('q', 'first');
    await turn();
    for (const name of ['a', 'b']) {
      void field.submit('q', name);
      await turns();
    }
    expect(await field.flights()).toEqual([['first']]);
    expect(field.batcher.waiting).toBe(2);
    field.departed[0]?.land();
    expect(await field.flights()).toEqual([['first'], ['a', 'b']]);
    expect(field.batcher.waiting).toBe(0);
  });

  test('is not answered before its flight has landed', async () => {
    const field = new Airfield();
    const answered = vi.fn<(answer: string) => void>();
    void field.submit('q', 'a').then(answered);
    await turns();
    expect(field.departed).toHaveLength(1);
    expect(answered).not.toHaveBeenCalled();
    field.departed[0]?.land();
    await turns();
    expect(answered).toHaveBeenCalledExactlyOnceWith('a');
  });

  test('that is refused does not touch its neighbours', async () => {
    const field = new Airfield();
    const answers = [field.submit('q', 'a'), field.submit('q', { name: 'b', fate: 'refused' }), field.submit('r', 'c')];
    await field.landAll();
    expect(await Promise.all(answers)).toEqual(['a', 'b refused', 'c']);
    expect(field.departed).toHaveLength(1);
    expect(field.carriedOut.toSorted()).toEqual(['a', 'c']);
  });
});

describe('a flight', () => {
  test('has no more requests than its limit', async () => {
    const field = new Airfield({ requests: 3 });
    for (const name of numbered('q', 7)) void field.submit('q', name);
    await field.landAll();
    expect((await field.flights()).map(({ length }) => length)).toEqual([3, 3, 1]);
  });

  test('has no more rows than its limit, but for a request that is larger by itself, which flies alone', async () => {
    const field = new Airfield({ rows: 10 });
    for (const [name, rows] of [
      ['a', 4],
      ['b', 6],
      ['c', 1],
      ['huge', 50],
      ['d', 1],
    ] as const) {
      void field.submit('q', { name, rows });
    }
    await field.landAll();
    expect(await field.flights()).toEqual([['a', 'b'], ['c'], ['huge'], ['d']]);
  });

  test('has no more bytes than its limit, but for a request that is larger by itself, which flies alone', async () => {
    const field = new Airfield({ bytes: 100 });
    for (const [name, bytes] of [
      ['a', 60],
      ['b', 60],
      ['huge', 500],
      ['c', 40],
      ['d', 60],
    ] as const) {
      void field.submit('q', { name, bytes });
    }
    await field.landAll();
    expect(await field.flights()).toEqual([['a'], ['b'], ['huge'], ['c', 'd']]);
  });

  test('is one of as many as the limit allows', async () => {
    const field = new Airfield({ flights: 2, requests: 1 });
    for (const name of numbered('q', 4)) void field.submit('q', name);
    expect(await field.flights()).toEqual([['q0']]);
    field.departed[0]?.land();
    expect(await field.flights()).toEqual([['q0'], ['q1']]);
  });

  test('does not hold up those behind it when it is slow, unless there are as many as there may be', async () => {
    const field = new Airfield({ flights: 2, requests: 1 });
    for (const name of numbered('q', 4)) void field.submit('q', name);
    await vi.waitFor(async () => expect(await field.flights()).toEqual([['q0'], ['q1']]));
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(await field.flights()).toEqual([['q0'], ['q1']]);
    field.departed[0]?.land();
    expect(await field.flights()).toEqual([['q0'], ['q1'], ['q2']]);
  });

  test('is told of when it has landed, whatever became of it', async () => {
    const field = new Airfield({ requests: 2 });
    for (const request of [{ name: 'a', rows: 5 }, { name: 'b', rows: 2 }, { name: 'c' }])
      void field.submit('q', request);
    await turns();
    expect(field.landed).toEqual([]);
    field.departed[0]?.land();
    await turns();
    field.departed[1]?.fail(new RowmqError('database-unavailable', 'gone'));
    await turns();
    expect(field.landed).toEqual([
      { rows: 7, ms: expect.any(Number) },
      { rows: 1, ms: expect.any(Number) },
    ]);
  });
});

describe('those who wait', () => {
  test.each([
    ['too many', { waitingRequests: 3 }, {}],
    ['too large together', { waitingBytes: 300 }, { bytes: 100 }],
  ])('and are %s: the next is refused and never carried out, until there is room again', async (_, limits, weight) => {
    const field = new Airfield(limits);
    const answers = [field.submit('q', 'under way')];
    await turn();
    for (const name of numbered('waits', 3)) answers.push(field.submit('q', { name, ...weight }));
    await expect(field.batcher.submit('r', { name: 'refused', ...weight })).rejects.toMatchObject({
      code: 'overloaded',
      retryAfterSeconds: 1,
    });
    expect(field.batcher.waiting).toBe(3);
    await field.landAll();
    const later = field.submit('r', { name: 'later', ...weight });
    await field.landAll();
    field.departed.at(-1)?.land();
    expect(await Promise.all([...answers, later])).toEqual(['under way', 'waits0', 'waits1', 'waits2', 'later']);
    expect(field.carriedOut).not.toContain('refused');
  });

  test('in one lane, thousands of them, hold up a request of another lane for no more than one flight', async () => {
    const field = new Airfield();
    for (const name of numbered('hot', 5000)) void field.submit('hot', name);
    await turns();
    void field.submit('cold', 'cold');
    field.departed[0]?.land();
    expect((await field.flights())[1]).toContain('cold');
    expect(field.departed[1]?.names).toHaveLength(100);
  });

  test('in one lane with large requests hold it up for no more than one flight either', async () => {
    const field = new Airfield({ rows: 100 });
    for (const name of numbered('hot', 50)) void field.submit('hot', { name, rows: 100 });
    await turns();
    void field.submit('cold', { name: 'cold', rows: 100 });
    for (let landed = 0; landed < 2; landed += 1) {
      field.departed[landed]?.land();
      await turns();
    }
    expect((await field.flights()).slice(0, 3).flat()).toContain('cold');
  });

  test('share flights evenly between their lanes', async () => {
    const field = new Airfield({ requests: 9 });
    for (const lane of ['a', 'b', 'c']) for (const name of numbered(lane, 30)) void field.submit(lane, name);
    expect((await field.flights())[0]?.toSorted()).toEqual([
      ...numbered('a', 3),
      ...numbered('b', 3),
      ...numbered('c', 3),
    ]);
  });

  describe('for long', () => {
    beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
    afterEach(() => void vi.useRealTimers());

    test('are refused when their turn comes after ten seconds, and not carried out; others are', async () => {
      const field = new Airfield({ waitingRequests: 3 });
      const answers = [field.submit('q', 'slow flight')];
      await turn();
      answers.push(field.submit('q', 'old'), field.submit('r', 'old, too'));
      vi.advanceTimersByTime(5000);
      answers.push(field.submit('q', 'younger'));
      vi.advanceTimersByTime(5001);
      await field.landAll();
      expect(await Promise.all(answers)).toEqual(['slow flight', 'overloaded', 'overloaded', 'younger']);
      expect(field.carriedOut).toEqual(['slow flight', 'younger']);
      expect(field.batcher.waiting).toBe(0);
    });

    test('make no empty flight, and room for those who come later', async () => {
      const field = new Airfield({ waitingRequests: 1 });
      const slow = field.submit('q', 'slow flight');
      await turn();
      const old = field.submit('q', 'old');
      vi.advanceTimersByTime(10_001);
      await field.landAll();
      expect([await slow, await old]).toEqual(['slow flight', 'overloaded']);
      expect(field.departed).toHaveLength(1);
      const next = field.submit('q', 'next');
      await turns();
      field.departed[1]?.land();
      expect(await next).toBe('next');
    });
  });
});

describe('lanes apart', () => {
  test('have flights of their own, in turn', async () => {
    const field = new Airfield({ requests: 2 }, true);
    for (const name of ['a0', 'a1', 'a2', 'b0', 'c0']) void field.submit(name.charAt(0), name);
    await field.landAll();
    expect(await field.flights()).toEqual([['a0', 'a1'], ['b0'], ['c0'], ['a2']]);
  });

  test('have one flight at a time each, however slow; the others fly past it', async () => {
    const field = new Airfield({ flights: 4 }, true);
    void field.submit('a', 'a0');
    await turns();
    for (const name of ['a1', 'b0', 'c0']) void field.submit(name.charAt(0), name);
    await vi.waitFor(async () => expect(await field.flights()).toEqual([['a0'], ['b0'], ['c0']]));
    field.departed[1]?.land();
    void field.submit('a', 'a2');
    expect(await field.flights()).toHaveLength(3);
    expect(field.batcher.waiting).toBe(2);
    field.departed[0]?.land();
    await vi.waitFor(async () => expect((await field.flights()).slice(3)).toEqual([['a1', 'a2']]));
  });

  test('do not stop for a lane all of whose requests have waited too long', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    try {
      const field = new Airfield({}, true);
      const answers = [field.submit('slow', 'slow flight')];
      await turn();
      answers.push(field.submit('old', 'old'));
      vi.advanceTimersByTime(10_001);
      answers.push(field.submit('young', 'young'));
      await field.landAll();
      expect(await Promise.all(answers)).toEqual(['slow flight', 'overloaded', 'young']);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('a flight that fails', () => {
  test('for a reason that may lie in one request is halved until only that one fails; each other is carried out once', async () => {
    for (const poisoned of [0, 3, 7, 12]) {
      const field = new Airfield();
      const all = numbered('r', 13);
      const answers = all.map((name, index) =>
        field.submit(`lane ${index % 3}`, index === poisoned ? { name, fate: 'poison' } : name),
      );
      await field.landAll();
      expect(await Promise.all(answers)).toEqual(all.map((name, index) => (index === poisoned ? 'poisoned' : name)));
      expect(field.carriedOut.toSorted()).toEqual(all.filter((_, index) => index !== poisoned).toSorted());
      // Halving a flight of 13: at most two flights for each of the four halvings, after the first.
      expect(field.departed.length).toBeLessThanOrEqual(9);
    }
  });

  test('because of several requests carries out all others', async () => {
    const field = new Airfield();
    const all = numbered('r', 10);
    const isPoison = (index: number): boolean => index === 2 || index === 3 || index === 8;
    const answers = all.map((name, index) => field.submit('q', isPoison(index) ? { name, fate: 'poison' } : name));
    await field.landAll();
    expect(await Promise.all(answers)).toEqual(all.map((name, index) => (isPoison(index) ? 'poisoned' : name)));
    expect(field.carriedOut).toEqual(all.filter((_, index) => !isPoison(index)));
  });

  test('because the database is away fails as a whole, at once, and the next takes off', async () => {
    const field = new Airfield();
    const answers = numbered('r', 5).map((name) => field.submit('q', name));
    await turns();
    const next = field.submit('q', 'next');
    field.departed[0]?.fail(new RowmqError('database-unavailable', 'gone'));
    expect(await Promise.all(answers)).toEqual(Array.from({ length: 5 }, () => 'database-unavailable'));
    expect(await field.flights()).toEqual([numbered('r', 5), ['next']]);
    field.departed[1]?.land();
    expect(await next).toBe('next');
  });

  test('and whose second half meets a database that is away has carried out the first', async () => {
    const field = new Airfield();
    const answers = ['a', 'b', 'c', 'd'].map((name) => field.submit('q', name));
    await turns();
    field.departed[0]?.fail(new Error('odd'));
    await turns();
    field.departed[1]?.land();
    await turns();
    field.departed[2]?.fail(new RowmqError('database-unavailable', 'gone'));
    expect(await Promise.all(answers)).toEqual(['a', 'b', 'database-unavailable', 'database-unavailable']);
    expect(field.carriedOut).toEqual(['a', 'b']);
  });

  test('takes its place among the flights until its halves have landed', async () => {
    const field = new Airfield();
    for (const name of ['a', 'b']) void field.submit('q', name);
    await turns();
    void field.submit('q', 'later');
    field.departed[0]?.fail(new Error('odd'));
    expect(await field.flights()).toEqual([['a', 'b'], ['a']]);
    field.departed[1]?.land();
    expect(await field.flights()).toEqual([['a', 'b'], ['a'], ['b']]);
    field.departed[2]?.land();
    expect(await field.flights()).toEqual([['a', 'b'], ['a'], ['b'], ['later']]);
  });
});

describe('any sequence of requests and landings', () => {
  const submission = fc.record({
    lane: fc.integer({ min: 0, max: 3 }),
    rows: fc.integer({ min: 1, max: 12 }),
    bytes: fc.integer({ min: 0, max: 40 }),
    fate: fc.oneof(
      { weight: 8, arbitrary: fc.constant(undefined) },
      fc.constantFrom('refused' as const, 'poison' as const),
    ),
  });
  const step = fc.oneof(
    { weight: 5, arbitrary: submission.map((request) => ({ request })) },
    { weight: 3, arbitrary: fc.nat(3).map((land) => ({ land })) },
    { weight: 1, arbitrary: fc.constant({ pause: true }) },
  );
  const limits = fc.record({
    requests: fc.integer({ min: 1, max: 6 }),
    flights: fc.integer({ min: 1, max: 4 }),
    lanesApart: fc.boolean(),
  });

  test('answers each request once, with its own answer, carries each out once, and takes off in order within a lane', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), limits, async (steps, { requests, flights, lanesApart }) => {
        const field = new Airfield({ requests, flights, rows: 20, bytes: 60 }, lanesApart);
        const sent: { lane: string; name: string; expected: string; rows: number; bytes: number }[] = [];
        const answers: Promise<string>[] = [];
        let landed = 0;
        for (const one of steps) {
          if ('request' in one) {
            const { lane, rows, bytes, fate } = one.request;
            const name = `${lane}.${String(sent.length).padStart(3, '0')}`;
            const expected = fate === 'refused' ? `${name} refused` : fate === 'poison' ? 'poisoned' : name;
            sent.push({ lane: String(lane), name, expected, rows, bytes });
            answers.push(field.submit(String(lane), { name, rows, bytes, ...(fate && { fate }) }));
          } else if ('land' in one) {
            await turn();
            // Not always the oldest: flights overtake each other.
            const flight = field.departed.slice(landed)[one.land] ?? field.departed[landed];
            flight?.land();
            if (flight === field.departed[landed]) landed += 1;
          } else {
            await turns();
          }
        }
        await field.landAll();

        expect(await Promise.all(answers)).toEqual(sent.map(({ expected }) => expected));
        expect(field.carriedOut.toSorted()).toEqual(
          sent.flatMap(({ name, expected }) => (name === expected ? [name] : [])).toSorted(),
        );
        expect(field.batcher.waiting).toBe(0);
        const known = new Map(sent.map((request) => [request.name, request]));
        const firstFlights = [...new Set(field.departed.flatMap((flight) => flight.names))];
        for (const lane of ['0', '1', '2', '3']) {
          const ofLane = firstFlights.filter((name) => name.startsWith(lane));
          expect(ofLane).toEqual(ofLane.toSorted());
        }
        for (const flight of field.departed) {
          const weights = flight.names.map((name) => known.get(name));
          expect(flight.names.length).toBeLessThanOrEqual(requests);
          if (lanesApart) expect(new Set(weights.map((request) => request?.lane)).size).toBe(1);
          if (weights.length === 1) continue;
          expect(weights.reduce((sum, request) => sum + (request?.rows ?? 0), 0)).toBeLessThanOrEqual(20);
          expect(weights.reduce((sum, request) => sum + (request?.bytes ?? 0), 0)).toBeLessThanOrEqual(60);
        }
      }),
      { numRuns: 300 },
    );
  });
});
