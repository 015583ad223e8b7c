import { setImmediate as turn } from 'node:timers/promises';
import { RowmqError } from '@rowmq/contract';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Batcher, type BatcherLimits } from './batcher.js';

/** A request of this many rows and bytes. Its answer is its own name. */
interface Request {
  name: string;
  rows?: number;
  bytes?: number;
  /** It is refused by itself, or makes every batch fail that it is in. */
  fate?: 'refused' | 'poison';
}

/** A batch in flight, until the test ends or fails it. */
interface Batch {
  names: string[];
  end: () => void;
  fail: (error: Error) => void;
}

const LIMITS: BatcherLimits = {
  requests: 100,
  rows: 1000,
  bytes: 10_000,
  batches: 1,
  waitingRequests: 10_000,
  waitingBytes: 100_000,
};

/** A batcher whose batches end when the test says so. */
class ManualBatcher {
  /** Every batch that started, in order. */
  readonly started: Batch[] = [];
  readonly ended: { rows: number; ms: number }[] = [];
  /** Requests that were carried out, as often as they were. */
  readonly carriedOut: string[] = [];
  readonly batcher: Batcher<Request, string>;

  constructor(limits: Partial<BatcherLimits> = {}) {
    this.batcher = new Batcher<Request, string>({
      commit: async (requests) =>
        new Promise((resolve, reject) => {
          let isOver = false;
          const end = (): void => {
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
          this.started.push({ names: requests.map(({ name }) => name), end, fail: reject });
        }),
      weigh: ({ rows = 1, bytes = 1 }) => ({ rows, bytes }),
      limits: { ...LIMITS, ...limits },
      onBatch: (batch) => this.ended.push(batch),
    });
  }

  /** Submits a request; its outcome is its answer, or the message or code of its error. */
  submit(queue: string, request: Request | string): Promise<string> {
    const answer = this.batcher.submit(queue, typeof request === 'string' ? { name: request } : request);
    return answer.catch((error: unknown) => (error instanceof RowmqError ? error.code : (error as Error).message));
  }

  /** The batches that started up to now, by the names of their requests. */
  async batches(): Promise<string[][]> {
    await turns();
    return this.started.map(({ names }) => names);
  }

  /** Ends batch after batch until none is in flight. */
  async endAll(): Promise<void> {
    for (let next = 0; ; next += 1) {
      await turns();
      const batch = this.started[next];
      if (batch === undefined) return;
      batch.end();
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

/** Batches are slow after 100 ms of this clock. It stands still unless the test moves it. */
function stopClock(): void {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
}

afterEach(() => void vi.useRealTimers());

describe('a batcher', () => {
  test('starts a batch in the same turn of the event loop if none is in flight', async () => {
    const manual = new ManualBatcher();
    const answer = manual.submit('q', 'lone');
    await turn();
    expect(manual.started.map(({ names }) => names)).toEqual([['lone']]);
    manual.started[0]?.end();
    expect(await answer).toBe('lone');
  });

  test('puts requests of one turn of the event loop into one batch', async () => {
    const manual = new ManualBatcher();
    for (const name of ['a', 'b', 'c']) void manual.submit('q', name);
    await Promise.resolve();
    void manual.submit('other', 'd');
    expect(await manual.batches()).toEqual([['a', 'd', 'b', 'c']]);
  });

  test('puts requests that come while a batch is in flight into the next one, all together', async () => {
    const manual = new ManualBatcher();
    void manual.submit('q', 'first');
    await turn();
    for (const name of ['a', 'b']) {
      void manual.submit('q', name);
      await turns();
    }
    expect(await manual.batches()).toEqual([['first']]);
    expect(manual.batcher.waiting).toBe(2);
    manual.started[0]?.end();
    expect(await manual.batches()).toEqual([['first'], ['a', 'b']]);
    expect(manual.batcher.waiting).toBe(0);
  });

  test('answers no request before its batch has ended', async () => {
    const manual = new ManualBatcher();
    const answered = vi.fn<(answer: string) => void>();
    void manual.submit('q', 'a').then(answered);
    await turns();
    expect(manual.started).toHaveLength(1);
    expect(answered).not.toHaveBeenCalled();
    manual.started[0]?.end();
    await turns();
    expect(answered).toHaveBeenCalledExactlyOnceWith('a');
  });

  test('refuses one request and carries out its neighbours', async () => {
    const manual = new ManualBatcher();
    const answers = [
      manual.submit('q', 'a'),
      manual.submit('q', { name: 'b', fate: 'refused' }),
      manual.submit('r', 'c'),
    ];
    await manual.endAll();
    expect(await Promise.all(answers)).toEqual(['a', 'b refused', 'c']);
    expect(manual.started).toHaveLength(1);
    expect(manual.carriedOut.toSorted()).toEqual(['a', 'c']);
  });
});

describe('a batch', () => {
  test('has no more requests than its limit', async () => {
    const manual = new ManualBatcher({ requests: 3 });
    for (const name of numbered('q', 7)) void manual.submit('q', name);
    await manual.endAll();
    expect((await manual.batches()).map(({ length }) => length)).toEqual([3, 3, 1]);
  });

  test('has no more rows than its limit, but a request that is larger by itself is a batch alone', async () => {
    const manual = new ManualBatcher({ rows: 10 });
    for (const [name, rows] of [
      ['a', 4],
      ['b', 6],
      ['c', 1],
      ['huge', 50],
      ['d', 1],
    ] as const) {
      void manual.submit('q', { name, rows });
    }
    await manual.endAll();
    expect(await manual.batches()).toEqual([['a', 'b'], ['c'], ['huge'], ['d']]);
  });

  test('has no more bytes than its limit, but a request that is larger by itself is a batch alone', async () => {
    const manual = new ManualBatcher({ bytes: 100 });
    for (const [name, bytes] of [
      ['a', 60],
      ['b', 60],
      ['huge', 500],
      ['c', 40],
      ['d', 60],
    ] as const) {
      void manual.submit('q', { name, bytes });
    }
    await manual.endAll();
    expect(await manual.batches()).toEqual([['a'], ['b'], ['huge'], ['c', 'd']]);
  });

  test('is the only one in flight, unless it is slow', async () => {
    stopClock();
    const manual = new ManualBatcher({ batches: 2, requests: 1 });
    for (const name of numbered('q', 4)) void manual.submit('q', name);
    expect(await manual.batches()).toEqual([['q0']]);
    manual.started[0]?.end();
    expect(await manual.batches()).toEqual([['q0'], ['q1']]);
  });

  test('that is slow lets another start beside it, up to the limit of batches', async () => {
    stopClock();
    const manual = new ManualBatcher({ batches: 2, requests: 1 });
    for (const name of numbered('q', 4)) void manual.submit('q', name);
    await turns();
    vi.advanceTimersByTime(99);
    expect(await manual.batches()).toEqual([['q0']]);
    vi.advanceTimersByTime(1);
    expect(await manual.batches()).toEqual([['q0'], ['q1']]);
    vi.advanceTimersByTime(1000);
    expect(await manual.batches()).toEqual([['q0'], ['q1']]);
    manual.started[0]?.end();
    expect(await manual.batches()).toEqual([['q0'], ['q1'], ['q2']]);
  });

  test('is reported when it has ended, also if it failed', async () => {
    const manual = new ManualBatcher({ requests: 2 });
    for (const request of [{ name: 'a', rows: 5 }, { name: 'b', rows: 2 }, { name: 'c' }])
      void manual.submit('q', request);
    await turns();
    expect(manual.ended).toEqual([]);
    manual.started[0]?.end();
    await turns();
    manual.started[1]?.fail(new RowmqError('database-unavailable', 'gone'));
    await turns();
    expect(manual.ended).toEqual([
      { rows: 7, ms: expect.any(Number) },
      { rows: 1, ms: expect.any(Number) },
    ]);
  });
});

describe('a batcher with requests that wait', () => {
  test.each([
    ['too many', { waitingRequests: 3 }, {}],
    ['too large together', { waitingBytes: 300 }, { bytes: 100 }],
  ])('refuses the next request if they are %s, until there is room again', async (_, limits, weight) => {
    const manual = new ManualBatcher(limits);
    const answers = [manual.submit('q', 'under way')];
    await turn();
    for (const name of numbered('waits', 3)) answers.push(manual.submit('q', { name, ...weight }));
    await expect(manual.batcher.submit('q', { name: 'refused', ...weight })).rejects.toMatchObject({
      code: 'overloaded',
      retryAfterSeconds: 1,
    });
    expect(manual.batcher.waiting).toBe(3);
    await manual.endAll();
    const later = manual.submit('r', { name: 'later', ...weight });
    await manual.endAll();
    manual.started.at(-1)?.end();
    expect(await Promise.all([...answers, later])).toEqual(['under way', 'waits0', 'waits1', 'waits2', 'later']);
    expect(manual.carriedOut).not.toContain('refused');
  });

  test('holds up no request for more than one batch, though another queue has thousands', async () => {
    const manual = new ManualBatcher();
    for (const name of numbered('hot', 5000)) void manual.submit('hot', name);
    await turns();
    void manual.submit('cold', 'cold');
    manual.started[0]?.end();
    expect((await manual.batches())[1]).toContain('cold');
    expect(manual.started[1]?.names).toHaveLength(100);
  });

  test('holds up no request for more than one batch, though another queue has large ones', async () => {
    const manual = new ManualBatcher({ rows: 100 });
    for (const name of numbered('hot', 50)) void manual.submit('hot', { name, rows: 100 });
    await turns();
    void manual.submit('cold', { name: 'cold', rows: 100 });
    for (let ended = 0; ended < 2; ended += 1) {
      manual.started[ended]?.end();
      await turns();
    }
    expect((await manual.batches()).slice(0, 3).flat()).toContain('cold');
  });

  test('shares a batch evenly between the queues', async () => {
    const manual = new ManualBatcher({ requests: 9 });
    for (const queue of ['a', 'b', 'c']) for (const name of numbered(queue, 30)) void manual.submit(queue, name);
    expect((await manual.batches())[0]?.toSorted()).toEqual([
      ...numbered('a', 3),
      ...numbered('b', 3),
      ...numbered('c', 3),
    ]);
  });

  describe('for long', () => {
    beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));

    test('refuses each request whose turn comes after ten seconds, and carries out the others', async () => {
      const manual = new ManualBatcher({ waitingRequests: 3 });
      const answers = [manual.submit('q', 'slow batch')];
      await turn();
      answers.push(manual.submit('q', 'old'), manual.submit('r', 'old, too'));
      vi.advanceTimersByTime(5000);
      answers.push(manual.submit('q', 'younger'));
      vi.advanceTimersByTime(5001);
      await manual.endAll();
      expect(await Promise.all(answers)).toEqual(['slow batch', 'overloaded', 'overloaded', 'younger']);
      expect(manual.carriedOut).toEqual(['slow batch', 'younger']);
      expect(manual.batcher.waiting).toBe(0);
    });

    test('starts no empty batch for requests that waited too long, and has room for later ones', async () => {
      const manual = new ManualBatcher({ waitingRequests: 1 });
      const slow = manual.submit('q', 'slow batch');
      await turn();
      const old = manual.submit('q', 'old');
      vi.advanceTimersByTime(10_001);
      await manual.endAll();
      expect([await slow, await old]).toEqual(['slow batch', 'overloaded']);
      expect(manual.started).toHaveLength(1);
      const next = manual.submit('q', 'next');
      await turns();
      manual.started[1]?.end();
      expect(await next).toBe('next');
    });
  });
});

describe('a batch that fails', () => {
  test('because of one request is halved until only that one fails, and each other is carried out once', async () => {
    for (const poisoned of [0, 3, 7, 12]) {
      const manual = new ManualBatcher();
      const all = numbered('r', 13);
      const answers = all.map((name, index) =>
        manual.submit(`queue ${index % 3}`, index === poisoned ? { name, fate: 'poison' } : name),
      );
      await manual.endAll();
      expect(await Promise.all(answers)).toEqual(all.map((name, index) => (index === poisoned ? 'poisoned' : name)));
      expect(manual.carriedOut.toSorted()).toEqual(all.filter((_, index) => index !== poisoned).toSorted());
      // A batch of 13 is halved four times. Each halving makes at most two batches.
      expect(manual.started.length).toBeLessThanOrEqual(9);
    }
  });

  test('because of several requests carries out all others', async () => {
    const manual = new ManualBatcher();
    const all = numbered('r', 10);
    const isPoison = (index: number): boolean => index === 2 || index === 3 || index === 8;
    const answers = all.map((name, index) => manual.submit('q', isPoison(index) ? { name, fate: 'poison' } : name));
    await manual.endAll();
    expect(await Promise.all(answers)).toEqual(all.map((name, index) => (isPoison(index) ? 'poisoned' : name)));
    expect(manual.carriedOut).toEqual(all.filter((_, index) => !isPoison(index)));
  });

  test('because the database is away fails as a whole, at once, and the next starts', async () => {
    const manual = new ManualBatcher();
    const answers = numbered('r', 5).map((name) => manual.submit('q', name));
    await turns();
    const next = manual.submit('q', 'next');
    manual.started[0]?.fail(new RowmqError('database-unavailable', 'gone'));
    expect(await Promise.all(answers)).toEqual(Array.from({ length: 5 }, () => 'database-unavailable'));
    expect(await manual.batches()).toEqual([numbered('r', 5), ['next']]);
    manual.started[1]?.end();
    expect(await next).toBe('next');
  });

  test('and whose second half meets a database that is away has carried out the first', async () => {
    const manual = new ManualBatcher();
    const answers = ['a', 'b', 'c', 'd'].map((name) => manual.submit('q', name));
    await turns();
    manual.started[0]?.fail(new Error('odd'));
    await turns();
    manual.started[1]?.end();
    await turns();
    manual.started[2]?.fail(new RowmqError('database-unavailable', 'gone'));
    expect(await Promise.all(answers)).toEqual(['a', 'b', 'database-unavailable', 'database-unavailable']);
    expect(manual.carriedOut).toEqual(['a', 'b']);
  });

  test('counts as in flight until its halves have ended', async () => {
    const manual = new ManualBatcher();
    for (const name of ['a', 'b']) void manual.submit('q', name);
    await turns();
    void manual.submit('q', 'later');
    manual.started[0]?.fail(new Error('odd'));
    expect(await manual.batches()).toEqual([['a', 'b'], ['a']]);
    manual.started[1]?.end();
    expect(await manual.batches()).toEqual([['a', 'b'], ['a'], ['b']]);
    manual.started[2]?.end();
    expect(await manual.batches()).toEqual([['a', 'b'], ['a'], ['b'], ['later']]);
  });
});

describe('any sequence of requests and ends of batches', () => {
  const submission = fc.record({
    queue: fc.integer({ min: 0, max: 3 }),
    rows: fc.integer({ min: 1, max: 12 }),
    bytes: fc.integer({ min: 0, max: 40 }),
    fate: fc.oneof(
      { weight: 8, arbitrary: fc.constant(undefined) },
      fc.constantFrom('refused' as const, 'poison' as const),
    ),
  });
  const step = fc.oneof(
    { weight: 5, arbitrary: submission.map((request) => ({ request })) },
    { weight: 3, arbitrary: fc.nat(3).map((end) => ({ end })) },
    { weight: 1, arbitrary: fc.constant({ pause: true }) },
  );
  const limits = fc.record({
    requests: fc.integer({ min: 1, max: 6 }),
    batches: fc.integer({ min: 1, max: 4 }),
  });

  test('answers each request once, with its own answer, carries each out once, and keeps the order within a queue', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), limits, async (steps, { requests, batches }) => {
        const manual = new ManualBatcher({ requests, batches, rows: 20, bytes: 60 });
        const sent: { queue: string; name: string; expected: string; rows: number; bytes: number }[] = [];
        const answers: Promise<string>[] = [];
        let ended = 0;
        for (const one of steps) {
          if ('request' in one) {
            const { queue, rows, bytes, fate } = one.request;
            const name = `${queue}.${String(sent.length).padStart(3, '0')}`;
            const expected = fate === 'refused' ? `${name} refused` : fate === 'poison' ? 'poisoned' : name;
            sent.push({ queue: String(queue), name, expected, rows, bytes });
            answers.push(manual.submit(String(queue), { name, rows, bytes, ...(fate && { fate }) }));
          } else if ('end' in one) {
            await turn();
            // Not always the oldest: batches overtake each other.
            const batch = manual.started.slice(ended)[one.end] ?? manual.started[ended];
            batch?.end();
            if (batch === manual.started[ended]) ended += 1;
          } else {
            await turns();
          }
        }
        await manual.endAll();

        expect(await Promise.all(answers)).toEqual(sent.map(({ expected }) => expected));
        expect(manual.carriedOut.toSorted()).toEqual(
          sent.flatMap(({ name, expected }) => (name === expected ? [name] : [])).toSorted(),
        );
        expect(manual.batcher.waiting).toBe(0);
        const known = new Map(sent.map((request) => [request.name, request]));
        const firstBatches = [...new Set(manual.started.flatMap(({ names }) => names))];
        for (const queue of ['0', '1', '2', '3']) {
          const ofQueue = firstBatches.filter((name) => name.startsWith(queue));
          expect(ofQueue).toEqual(ofQueue.toSorted());
        }
        for (const batch of manual.started) {
          const weights = batch.names.map((name) => known.get(name));
          expect(batch.names.length).toBeLessThanOrEqual(requests);
          if (weights.length === 1) continue;
          expect(weights.reduce((sum, request) => sum + (request?.rows ?? 0), 0)).toBeLessThanOrEqual(20);
          expect(weights.reduce((sum, request) => sum + (request?.bytes ?? 0), 0)).toBeLessThanOrEqual(60);
        }
      }),
      { numRuns: 300 },
    );
  });
});
