import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Batches } from './batches.js';

let clock = 0;
/** Already aborted, so that no batch pauses. */
const hurried = AbortSignal.abort();

beforeEach(() => {
  clock = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => clock);
});

afterEach(() => vi.restoreAllMocks());

function taking(ms: number): (size: number) => Promise<number> {
  return async (size) => {
    clock += ms;
    return size;
  };
}

describe('batches', () => {
  test('double in size after a quick one, up to the maximum', async () => {
    const batches = new Batches(500, 50, 1500);
    const sizes = [];
    for (let batch = 0; batch < 4; batch += 1) sizes.push(await batches.run(hurried, taking(24)));
    expect(sizes).toEqual([500, 1000, 1500, 1500]);
  });

  test('halve in size after a slow one, down to the minimum', async () => {
    const batches = new Batches(501, 100, 5000);
    const sizes = [];
    for (let batch = 0; batch < 4; batch += 1) sizes.push(await batches.run(hurried, taking(101)));
    expect(sizes).toEqual([501, 250, 125, 100]);
  });

  test('keep their size when they take about 50 ms', async () => {
    const batches = new Batches();
    for (const ms of [25, 50, 100]) await batches.run(hurried, taking(ms));
    expect(await batches.run(hurried, taking(50))).toBe(500);
  });

  test('rethrow the error of a failed one, and halve the next', async () => {
    const batches = new Batches();
    await expect(batches.run(hurried, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(await batches.run(hurried, taking(50))).toBe(250);
  });

  test('run until one does nothing, until their time is over, or until the signal', async () => {
    const left = [3, 2, 0, 5];
    const next = async (): Promise<number> => {
      clock += 10;
      return left.shift()!;
    };
    const signal = new AbortController();
    expect(await new Batches().runAll(signal.signal, next)).toBe(5);
    expect(left).toEqual([5]);
    left.push(4, 0);
    expect(await new Batches().runAll(signal.signal, next, { until: clock + 10 })).toBe(5);
    expect(left).toEqual([4, 0]);
    signal.abort();
    expect(await new Batches().runAll(signal.signal, next)).toBe(0);
    expect(left).toEqual([4, 0]);
  });

  test('pause for up to their own duration, and the signal ends the pause', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0.999);
    const stopping = new AbortController();
    let ended = false;
    const running = new Batches().run(stopping.signal, taking(60_000)).then(() => (ended = true));
    await new Promise((resolve) => {
      setTimeout(resolve, 50);
    });
    expect(ended).toBe(false);
    stopping.abort();
    await running;
    expect(ended).toBe(true);
  });
});
