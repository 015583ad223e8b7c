import { inspect, isDeepStrictEqual } from 'node:util';

/** Counts events over all histories, to prove that they exercise the store. */
export const tally = new Map<string, number>();

export function count(event: string, times = 1): void {
  if (times > 0) tally.set(event, (tally.get(event) ?? 0) + times);
}

/** Throws if the store and the model differ. */
export function same(what: string, actual: unknown, expected: unknown): void {
  if (isDeepStrictEqual(actual, expected)) return;
  const [store, model] = [actual, expected].map((value) => inspect(value, { depth: 9, breakLength: Infinity }));
  throw new Error(`${what}: the store says ${store}, the model ${model}`);
}
