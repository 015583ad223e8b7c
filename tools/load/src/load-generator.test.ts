import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, vi } from 'vitest';
import { LoadGenerator, type Turn } from './load-generator.js';

/** Calls that end when the test says so. */
class Calls {
  readonly turns: Turn[] = [];
  private readonly endings: { resolve: () => void; reject: (error: Error) => void }[] = [];

  readonly begin = async (turn: Turn): Promise<void> => {
    this.turns.push(turn);
    await new Promise<void>((resolve, reject) => this.endings.push({ resolve, reject }));
  };

  async finish(number: number): Promise<void> {
    this.endings[number]?.resolve();
    await vi.waitFor(() => undefined);
  }

  fail(number: number, message: string): void {
    this.endings[number]?.reject(new Error(message));
  }
}

describe('a closed load', () => {
  it('has one call of each worker in flight and begins the next when it ends', async () => {
    const calls = new Calls();
    const load = new LoadGenerator({ workers: 2 }, calls.begin);
    expect(calls.turns.map(({ worker }) => worker)).toEqual([0, 1]);
    await calls.finish(1);
    expect(calls.turns.map(({ worker, number }) => [worker, number])).toEqual([
      [0, 0],
      [1, 1],
      [1, 2],
    ]);
    load.end();
    await calls.finish(0);
    await calls.finish(2);
    await load.stop();
    expect(calls.turns).toHaveLength(3);
  });

  it('never has more calls in flight than mayCall allows, and goes on when it is woken', async () => {
    const calls = new Calls();
    let room = 2;
    const load = new LoadGenerator({ workers: 5, mayCall: () => room > 0 }, (turn) => {
      room -= 1;
      return calls.begin(turn);
    });
    expect(calls.turns).toHaveLength(2);
    load.wake();
    expect(calls.turns).toHaveLength(2);
    room += 1;
    load.wake();
    load.wake();
    await vi.waitFor(() => expect(calls.turns).toHaveLength(3));
    expect(room).toBe(0);
    load.end();
    for (const number of [0, 1, 2]) await calls.finish(number);
    await load.stop();
    expect(calls.turns).toHaveLength(3);
  });

  it('rejects when a call fails while others are in flight, and begins no further call', async () => {
    const calls = new Calls();
    const load = new LoadGenerator({ workers: 2 }, calls.begin);
    calls.fail(0, 'refused');
    await expect(load.ended).rejects.toThrow('refused');
    expect(calls.turns[1]?.signal.aborted).toBe(true);
    await calls.finish(1);
    await expect(load.stop()).rejects.toThrow('refused');
    expect(calls.turns).toHaveLength(2);
  });
});

describe('a paced load', () => {
  it('calls at evenly spaced moments although no call ends', async () => {
    const calls = new Calls();
    const load = new LoadGenerator({ perSecond: 200 }, calls.begin);
    await vi.waitFor(() => expect(calls.turns.length).toBeGreaterThanOrEqual(5));
    load.end();
    const dues = calls.turns.map(({ due }) => due);
    for (const [index, due] of dues.entries()) expect(due - (dues[0] as number)).toBeCloseTo(index * 5);
    expect(calls.turns.map(({ worker }) => worker)).toEqual(dues.map((_, index) => index));
    for (const [number] of dues.entries()) await calls.finish(number);
    await load.stop();
  });

  it('gives a call to a worker that has none in flight', async () => {
    const busy = new Set<number>();
    const calls = new Calls();
    const load = new LoadGenerator({ perSecond: 500 }, async (turn) => {
      expect(busy).not.toContain(turn.worker);
      busy.add(turn.worker);
      await calls.begin(turn);
      busy.delete(turn.worker);
    });
    const { turns } = calls;
    for (let ended = 0; ended < 20; ended += 1) {
      await vi.waitUntil(() => turns.length > ended, { interval: 1 });
      const next = turns.length;
      await calls.finish(ended);
      await vi.waitUntil(() => turns.length > next, { interval: 1 });
      expect(turns[next]?.worker).toBe(turns[ended]?.worker);
    }
    load.end();
    await sleep(5);
    for (const [number] of turns.entries()) await calls.finish(number);
    await load.stop();
  });

  it('has no more calls in flight than maxInFlight, and makes the delayed ones with their own dues', async () => {
    const calls = new Calls();
    const load = new LoadGenerator({ perSecond: 1000, maxInFlight: 3 }, calls.begin);
    await vi.waitFor(() => expect(calls.turns).toHaveLength(3));
    // By then, five more calls are due.
    await sleep(8);
    expect(calls.turns).toHaveLength(3);
    await calls.finish(1);
    await vi.waitFor(() => expect(calls.turns).toHaveLength(4));
    expect(calls.turns[3]?.worker).toBe(1);
    expect((calls.turns[3]?.due ?? 0) - (calls.turns[0]?.due ?? 0)).toBeCloseTo(3);
    load.end();
    for (const number of [0, 2, 3]) await calls.finish(number);
    await load.stop();
  });

  it('begins later by afterMs', async () => {
    const calls = new Calls();
    const began = performance.now();
    const load = new LoadGenerator({ perSecond: 1000, afterMs: 30 }, calls.begin);
    await vi.waitFor(() => expect(calls.turns.length).toBeGreaterThan(0));
    expect(calls.turns[0]?.due).toBeGreaterThanOrEqual(began + 30);
    load.end();
    await sleep(5);
    for (const [number] of calls.turns.entries()) await calls.finish(number);
    await load.stop();
  });

  it('rejects when a call fails', async () => {
    const calls = new Calls();
    const load = new LoadGenerator({ perSecond: 100 }, calls.begin);
    await vi.waitFor(() => expect(calls.turns.length).toBeGreaterThan(0));
    calls.fail(0, 'refused');
    await expect(load.ended).rejects.toThrow('refused');
    for (const [number] of calls.turns.entries()) await calls.finish(number);
    await expect(load.stop()).rejects.toThrow('refused');
  });
});
