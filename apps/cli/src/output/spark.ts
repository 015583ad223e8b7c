import sparkly from 'sparkly';

/** A row of bars, the highest being the largest value; a flat line if nothing happened. */
export function spark(values: readonly (number | null)[]): string {
  if (values.length === 0) return '';
  const numbers = values.map((value) => value ?? '');
  return sparkly(numbers, { minimum: 0, maximum: Math.max(1, ...values.map((value) => value ?? 0)) });
}
