import { UsageError } from '../exit-codes.js';

const SECONDS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 };
const DURATION = /^(\d{1,10}(?:\.\d{1,3})?)(s|m|h|d)?$/;

/** A duration in seconds: `90`, `90s`, `15m`, `2h` or `7d`. */
export function durationSeconds(text: string): number {
  const [, number, unit = 's'] = DURATION.exec(text) ?? [];
  if (number === undefined) throw new UsageError(`'${text}' is no duration. Write seconds, or such as 15m, 2h or 7d.`);
  return Number(number) * (SECONDS[unit] as number);
}

/** A whole number of seconds, for a field of a request. */
export function wholeSeconds(text: string): number {
  return Math.round(durationSeconds(text));
}

/** A time: ISO 8601 with a zone, or how long ago, such as `2h`. */
export function pastTime(text: string, now = Date.now()): string {
  return timeOf(text, now, -1);
}

/** A time: ISO 8601 with a zone, or how far ahead, such as `2h`. */
export function futureTime(text: string, now = Date.now()): string {
  return timeOf(text, now, 1);
}

function timeOf(text: string, now: number, sign: number): string {
  if (DURATION.test(text)) return new Date(now + sign * durationSeconds(text) * 1000).toISOString();
  if (text === 'now') return new Date(now).toISOString();
  // A time without a zone would mean another one on each machine.
  if (!/^\d{4}-\d\d-\d\dT.*(Z|[+-]\d\d:?\d\d)$/.test(text) || Number.isNaN(Date.parse(text)))
    throw new UsageError(`'${text}' is no time. Write one such as 2026-11-22T18:00:00Z, or a duration such as 2h.`);
  return new Date(text).toISOString();
}

/** A whole number in a range. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max)
      throw new UsageError(`'${text}' is no whole number from ${min} to ${max}.`);
    return value;
  };
}

const AGES: readonly [seconds: number, unit: string][] = [
  [86_400, 'd'],
  [3600, 'h'],
  [60, 'min'],
  [1, 's'],
];

/** A duration for people, in at most two units: `14 min`, `3 h 20 min`. */
export function age(seconds: number | null): string {
  if (seconds === null) return '–';
  if (seconds < 1) return seconds < 0.01 ? '0 s' : `${Math.round(seconds * 1000)} ms`;
  const whole = Math.round(seconds);
  const index = AGES.findIndex(([size]) => whole >= size);
  const [size, unit] = AGES[index] as [number, string];
  const first = Math.floor(whole / size);
  const rest = AGES[index + 1];
  const more = rest === undefined ? 0 : Math.floor((whole - first * size) / rest[0]);
  return more === 0 || first >= 10 ? `${first} ${unit}` : `${first} ${unit} ${more} ${(rest as [number, string])[1]}`;
}

/** The age of a time of the broker. Clocks may differ, so it is never negative. */
export function ago(time: string | null, now = Date.now()): string {
  return time === null ? 'never' : `${age(Math.max(0, (now - Date.parse(time)) / 1000))} ago`;
}

/** A whole number with thousands apart. */
export function count(value: number): string {
  return value.toLocaleString('en-US');
}

/** Messages a second. */
export function rate(value: number): string {
  if (value === 0) return '0';
  if (value < 0.1) return '< 0.1';
  return value < 10 ? value.toFixed(1) : count(Math.round(value));
}
