import { z } from 'zod';
import { LIMITS } from './limits.js';

/*
 * The filter of a subscription, in the syntax of Amazon SNS's filter policies on attributes: the
 * names of headers, and for each a list of conditions. A message matches if each of these headers
 * meets one of its conditions. Headers are strings, so `numeric` reads them as decimal numbers.
 */

const text = z.string().refine((value) => value.isWellFormed(), 'holds half of a surrogate pair');
const some = text.min(1);

const numeric = z.union([
  z.tuple([z.enum(['=', '<', '<=', '>', '>=']), z.number()]),
  z.tuple([z.enum(['>', '>=']), z.number(), z.enum(['<', '<=']), z.number()]),
]);

const condition = z.union(
  [
    text,
    z.strictObject({ prefix: some }),
    z.strictObject({ 'anything-but': z.union([text, z.array(text).min(1), z.strictObject({ prefix: some })]) }),
    z.strictObject({ exists: z.boolean() }),
    z.strictObject({ numeric }),
  ],
  {
    error:
      'must be a string, {"prefix": "…"}, {"anything-but": "…", […] or {"prefix": "…"}}, {"exists": true or false}, or {"numeric": ["=", 1] or [">=", 0, "<", 10]}',
  },
);

export const filter = z
  .record(some, z.array(condition).min(1))
  .refine((value) => {
    const headers = Object.keys(value).length;
    return headers >= 1 && headers <= LIMITS.filterHeaders;
  }, `must name 1 to ${LIMITS.filterHeaders} headers; leave the filter out for every message`)
  .refine(
    (value) => Object.values(value).flat().length <= LIMITS.filterConditions,
    `must have at most ${LIMITS.filterConditions} conditions`,
  )
  .refine(
    (value) => Buffer.byteLength(JSON.stringify(value)) <= LIMITS.filterBytes,
    `must have at most ${LIMITS.filterBytes} bytes as JSON`,
  )
  .meta({
    description: 'A message matches if each of these headers meets one of its conditions; null: every message matches',
    example: { event: ['order-created', { prefix: 'payment-' }], amount: [{ numeric: ['>=', 100] }] },
  });

export type Filter = z.output<typeof filter>;
type Condition = Filter[string][number];
type Numeric = z.output<typeof numeric>;

const DECIMAL = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;

/** Whether a message with these headers matches a filter. Without a filter, every message does. */
export function matches(wanted: Filter | null, headers: Readonly<Record<string, string>>): boolean {
  if (wanted === null) return true;
  return Object.entries(wanted).every(([name, conditions]) => {
    const value = Object.hasOwn(headers, name) ? headers[name] : undefined;
    return conditions.some((one) => meets(value, one));
  });
}

/** Whether a header meets a condition. Undefined: the message has no such header. */
function meets(value: string | undefined, one: Condition): boolean {
  if (typeof one === 'object' && 'exists' in one) return one.exists === (value !== undefined);
  if (value === undefined) return false;
  if (typeof one === 'string') return value === one;
  if ('prefix' in one) return value.startsWith(one.prefix);
  if ('numeric' in one) return DECIMAL.test(value) && isWithin(Number(value), one.numeric);
  const except = one['anything-but'];
  if (typeof except === 'string') return value !== except;
  return Array.isArray(except) ? !except.includes(value) : !value.startsWith(except.prefix);
}

function isWithin(value: number, [operator, bound, ...rest]: Numeric): boolean {
  const [upper, upperBound] = rest;
  return COMPARE[operator](value, bound) && (upper === undefined || COMPARE[upper](value, upperBound as number));
}

const COMPARE: Record<Numeric[0], (value: number, bound: number) => boolean> = {
  '=': (value, bound) => value === bound,
  '<': (value, bound) => value < bound,
  '<=': (value, bound) => value <= bound,
  '>': (value, bound) => value > bound,
  '>=': (value, bound) => value >= bound,
};
