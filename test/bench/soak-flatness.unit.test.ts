import { describe, expect, it } from 'vitest';
import { judgeFlatness } from '../../bench/soak/flatness.js';
import { type QuantityName, quantities, type Sample } from '../../bench/soak/quantities.js';

const SECONDS = 400;

/** A run in which all quantities stay at 100, except one. */
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

  it('finds only the quantity that grows throughout the run', () => {
    expect(notFlat(run('brokerMegabytes', (second) => 100 + second / 10))).toEqual(['brokerMegabytes']);
    expect(notFlat(run('reaperHandles', (second) => 20 + second / 20))).toEqual(['reaperHandles']);
    expect(notFlat(run('folderMegabytes', (second) => 300 + second / 5))).toEqual(['folderMegabytes']);
    expect(notFlat(run('claimTailMs', (second) => 10 + second / 5))).toEqual(['claimTailMs']);
  });

  it('accepts growth within the first quarter, shrinking, and single peaks', () => {
    expect(notFlat(run('tableMegabytes', (second) => Math.min(second, SECONDS / 4)))).toEqual([]);
    expect(notFlat(run('historyListLength', (second) => 9000 - second * 10))).toEqual([]);
    expect(notFlat(run('claimTailMs', (second) => (second === 380 ? 5000 : 10)))).toEqual([]);
  });

  it('applies each quantity’s own limit of growth', () => {
    const step = (to: number) => (second: number) => (second < SECONDS / 2 ? 100 : to);
    // The limit is 5 % and 10 MiB.
    expect(notFlat(run('brokerMegabytes', step(115)))).toEqual([]);
    expect(notFlat(run('brokerMegabytes', step(115.5)))).toEqual(['brokerMegabytes']);
    expect(notFlat(run('connections', step(103)))).toEqual([]);
    expect(notFlat(run('connections', step(104)))).toEqual(['connections']);
  });

  it('never judges a quantity flat if some samples are missing', () => {
    expect(notFlat(run('deliveries', (second) => (second < 300 ? 100 : null)))).toEqual(['deliveries']);
    expect(notFlat([])).toHaveLength(quantities().filter(([, { growth }]) => growth !== undefined).length);
  });

  it('ignores the rate of acks', () => {
    expect(notFlat(run('ackedPerSecond', (second) => second))).toEqual([]);
  });
});
