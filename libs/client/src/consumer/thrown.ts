import { LIMITS } from '@rowmq/contract';
import { inspect, types } from 'node:util';

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

/** The longest description of one error of a chain of causes, and the longest chain. */
const ERROR_CHARS = 4000;
const ERRORS = 5;

/**
 * An error with its stack, code and causes. Other fields are left out: an error of an HTTP client
 * has the request there, with passwords and API keys. Another thrown value is shown by its own
 * fields, and those within them are left out.
 */
export function describe(thrown: unknown): string {
  const parts = [cut(partOf(thrown), ERROR_CHARS)];
  let cause = causeOf(thrown);
  while (cause !== undefined && parts.length < ERRORS) {
    parts.push(`[cause]: ${cut(partOf(cause), ERROR_CHARS)}`);
    cause = causeOf(cause);
  }
  return cut(parts.join('\n'), DESCRIPTION_CHARS);
}

/** Also an error of another realm, such as Node.js's own in a test of Jest. */
function isError(value: unknown): value is Error {
  return types.isNativeError(value) || isA(value, Error);
}

function causeOf(thrown: unknown): unknown {
  return isError(thrown) ? quietly(() => thrown.cause) : undefined;
}

/** One error of a chain of causes. */
function partOf(thrown: unknown): string {
  if (typeof thrown === 'string') return thrown;
  return isError(thrown) ? (quietly(() => stackOf(thrown)) ?? textOf(thrown)) : textOf(thrown);
}

function stackOf(error: Error): string {
  const { code, stack } = error as { code?: unknown; stack?: unknown };
  const text = typeof stack === 'string' && stack !== '' ? stack : String(error);
  const hasCode = typeof code === 'string' || typeof code === 'number';
  return hasCode ? `${cut(text, ERROR_CHARS - 200)}\n[code]: ${cut(String(code), 100)}` : text;
}

function cut(text: string, chars: number): string {
  return text.length <= chars ? text : `${text.slice(0, chars).toWellFormed()} … (cut)`;
}

/** An error on one line, for failures that have no cause in the user's code. */
export function brief(thrown: unknown): string {
  return isError(thrown) ? cut(quietly(() => String(thrown)) ?? textOf(thrown), ERROR_CHARS) : describe(thrown);
}

function textOf(thrown: unknown): string {
  if (isError(thrown)) return 'an error that cannot be shown';
  const options = { breakLength: Infinity, depth: 0, maxStringLength: 2000, maxArrayLength: 20 };
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
