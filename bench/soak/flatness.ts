import { median } from '../harness/figures.js';
import { type Quantity, type QuantityName, quantities, type Sample } from './quantities.js';

/** The verdict on one quantity, from the medians of two quarters of a run. */
export interface Flatness {
  name: QuantityName;
  quantity: Quantity;
  /** Medians of the second quarter, and of the last. */
  second: number;
  last: number;
  /** The last counts as flat up to this; null: not judged. */
  allowed: number | null;
  isFlat: boolean;
}

/**
 * Compares the last quarter of a run with the second, by the medians of every quantity. A quantity
 * is flat if it grew by no more than it may; it may shrink. Without readings in one of the
 * quarters, it is not flat.
 */
export function judgeFlatness(samples: readonly Sample[], seconds: number): Flatness[] {
  return quantities().map(([name, quantity]) => {
    const second = medianBetween(samples, name, seconds / 4, seconds / 2);
    const last = medianBetween(samples, name, (seconds * 3) / 4, seconds);
    const { growth } = quantity;
    const allowed = growth === undefined ? null : second * (1 + growth.share) + growth.slack;
    // A comparison with NaN is never true.
    return { name, quantity, second, last, allowed, isFlat: allowed === null || last <= allowed };
  });
}

function medianBetween(samples: readonly Sample[], name: QuantityName, from: number, to: number): number {
  const values = samples
    .filter(({ at }) => at >= from && at < to)
    .flatMap(({ values: { [name]: value } }) => value ?? []);
  return values.length === 0 ? Number.NaN : median(values);
}
