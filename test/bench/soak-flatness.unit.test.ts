import { describe, expect, it } from 'vitest';
import { judgeFlatness } from '../../bench/soak/flatness.js';
import { type QuantityName, quantities, type Sample } from '../../bench/soak/quantities.js';

const SECONDS = 400;

/** A run in which everything stays at 100, but for one quantity. */
function run(name: QuantityName, valueAt: (second: number) => number | null): Sample[] {
  return Array.from({ length: SECONDS / 5 }, (_, index) => {
    const at = index * 5;
    const values = Object.fromEntries(quantities().map(([each]) => [each, 100])) as Sample['values'];
    return { at, values: { ...values, [name]: valueAt(at) } };
  });
}

function notFlat(samples: readonly Sample[]): string[] {
  return judgeFlatness(samples, SECONDS).flatMap(({ name, isFlat }) => (isFlat ? [] : [name]));
}

describe('judgeFlatness', () => {
  it('finds a steady run flat', () => {
    expect(notFlat(run('brokerMegabytes', () => 100))).toEqual([]);
  });

  it('finds a quantity that grows all the time, and no other', () => {
    expect(notFlat(run('brokerMegabytes', (second) => 100 + second / 10))).toEqual(['brokerMegabytes']);
    expect(notFlat(run('reaperHandles', (second) => 20 + second / 20))).toEqual(['reaperHandles']);
    expect(notFlat(run('folderMegabytes', (second) => 300 + second / 5))).toEqual(['folderMegabytes']);
    expect(notFlat(run('claimTailMs', (second) => 10 + second / 5))).toEqual(['claimTailMs']);
  });

  it('accepts growth in the first quarter only, shrinking, and single peaks', () => {
    expect(notFlat(run('tableMegabytes', (second) => Math.min(second, SECONDS / 4)))).toEqual([]);
    expect(notFlat(run('historyListLength', (second) => 9000 - second * 10))).toEqual([]);
    expect(notFlat(run('claimTailMs', (second) => (second === 380 ? 5000 : 10)))).toEqual([]);
  });

  it('allows each quantity its own growth, and no more', () => {
    const step = (to: number) => (second: number) => (second < SECONDS / 2 ? 100 : to);
    // 5 % and 10 MiB.
    expect(notFlat(run('brokerMegabytes', step(115)))).toEqual([]);
    expect(notFlat(run('brokerMegabytes', step(115.5)))).toEqual(['brokerMegabytes']);
    expect(notFlat(run('connections', step(103)))).toEqual([]);
    expect(notFlat(run('connections', step(104)))).toEqual(['connections']);
  });

  it('never calls a quantity flat that it could not read', () => {
    expect(notFlat(run('deliveries', (second) => (second < 300 ? 100 : null)))).toEqual(['deliveries']);
    expect(notFlat([])).toHaveLength(quantities().filter(([, { growth }]) => growth !== undefined).length);
  });

  it('never judges the rate', () => {
    expect(notFlat(run('ackedPerSecond', (second) => second))).toEqual([]);
  });
});
