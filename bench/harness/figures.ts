/**
 * Numbers under names, nested: the figures of one run of a scenario. Strings say what was measured.
 */
export type Figures = { readonly [name: string]: number | string | Figures };

/** Quantiles of latencies, ms. */
export type Quantiles = { count: number; p50: number; p99: number; max: number };

export function quantiles(samples: readonly number[]): Quantiles {
  const sorted = Float64Array.from(samples).toSorted();
  const at = (share: number): number => sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)] ?? 0;
  return { count: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

/** The median of every figure over runs of the same scenario. */
export function medians<T extends Figures>(runs: readonly T[]): T {
  const entries = Object.entries(runs[0] ?? {}).map(([name, first]) => {
    const values = runs.map((run) => run[name]);
    if (typeof first === 'string') return [name, first];
    return [name, typeof first === 'number' ? median(values as number[]) : medians(values as Figures[])];
  });
  return Object.fromEntries(entries) as T;
}
