import { LIMITS } from '@rowmq/contract';
import { inspect } from 'node:util';

/*
 * A handler may throw anything: undefined, an object whose getters throw, a proxy that answers
 * nothing. These functions never throw.
 */

/** A class, also one whose constructor is private. */
interface Class<T> {
  prototype: T;
}

export function isA<T>(value: unknown, type: Class<T>): value is T {
  return quietly(() => value instanceof (type as new () => T)) ?? false;
}

/** A short text for people, which the broker keeps with the delivery. */
export function reasonOf(thrown: unknown): string {
  const message = quietly(() => {
    if (typeof thrown === 'string') return thrown;
    if (typeof thrown !== 'object' || thrown === null) return undefined;
    const { message: text, name } = thrown as { message?: unknown; name?: unknown };
    if (typeof text === 'string' && text !== '') return text;
    return thrown instanceof Error && typeof name === 'string' ? name : undefined;
  });
  return bounded(message || `the handler threw ${textOf(thrown)}`);
}

/** The longest reason that the broker takes. */
export function bounded(reason: string): string {
  return reason.slice(0, LIMITS.reasonChars).toWellFormed();
}

/** The longest description of an error in a log. */
const DESCRIPTION_CHARS = 10_000;

/** An error with its stack and causes, or another thrown value as code shows it. */
export function describe(thrown: unknown): string {
  const text = typeof thrown === 'string' ? thrown : textOf(thrown);
  return text.length <= DESCRIPTION_CHARS ? text : `${text.slice(0, DESCRIPTION_CHARS)} … (cut)`;
}

/** An error on one line, for failures that have no cause in the user's code. */
export function brief(thrown: unknown): string {
  return isA(thrown, Error) ? (quietly(() => String(thrown)) ?? describe(thrown)) : describe(thrown);
}

function textOf(thrown: unknown): string {
  const options = { breakLength: Infinity, depth: 4, maxStringLength: 2000, maxArrayLength: 20 };
  return (
    quietly(() => inspect(thrown, options)) ??
    quietly(() => inspect(thrown, { ...options, customInspect: false })) ??
    'something that cannot be shown'
  );
}

/** The function's result, or undefined if it throws. */
export function quietly<T>(make: () => T): T | undefined {
  try {
    return make();
  } catch {
    return undefined;
  }
}
