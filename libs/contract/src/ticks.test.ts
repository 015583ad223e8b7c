import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  cronFault,
  dueTicks,
  isTimeZone,
  lastTick,
  type Missed,
  nextTick,
  type Timing,
  TICKS_AT_ONCE,
} from './ticks.js';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const cron = (pattern: string, timeZone = 'UTC'): Timing => ({ cron: pattern, everySeconds: null, timeZone });
const every = (everySeconds: number): Timing => ({ cron: null, everySeconds, timeZone: null });

/** The ticks in a span, both ends included. */
function ticksIn(timing: Timing, from: number, to: number): number[] {
  const ticks: number[] = [];
  for (let tick = nextTick(timing, from - 1); tick !== null && tick <= to; tick = nextTick(timing, tick))
    ticks.push(tick);
  return ticks;
}

const text = (ticks: readonly number[]): string[] => ticks.map((tick) => new Date(tick).toISOString().slice(0, 16));

/** Days around every daylight-saving change of 2026, and a zone that has none. */
const CHANGES: [zone: string, day: string][] = [
  ['Europe/Berlin', '2026-03-29'],
  ['Europe/Berlin', '2026-10-25'],
  ['America/New_York', '2026-03-08'],
  ['America/New_York', '2026-11-01'],
  // Its clocks change by half an hour.
  ['Australia/Lord_Howe', '2026-04-05'],
  ['Australia/Lord_Howe', '2026-10-04'],
  ['Asia/Tokyo', '2026-03-29'],
];

/*
 * The specification, by another way: what a clock on the wall of this zone shows in each minute.
 */

interface Wall {
  at: number;
  date: string;
  hour: number;
  minute: number;
}

const walls = new Map<string, Wall[]>();

/** Each minute of five days, the change on the third. */
function minutesAround([zone, day]: [string, string]): Wall[] {
  const known = walls.get(zone + day);
  if (known !== undefined) return known;
  const format = new Intl.DateTimeFormat('en-CA', {
    timeZone: zone,
    hourCycle: 'h23',
    dateStyle: 'short',
    timeStyle: 'short',
  });
  const start = Date.parse(day) - 2 * DAY;
  const all = Array.from({ length: (5 * DAY) / MINUTE }, (_, index): Wall => {
    const at = start + index * MINUTE;
    const parts = new Map(format.formatToParts(at).map(({ type, value }) => [type, value]));
    const date = `${parts.get('year')}-${parts.get('month')}-${parts.get('day')}`;
    return { at, date, hour: Number(parts.get('hour')), minute: Number(parts.get('minute')) };
  });
  walls.set(zone + day, all);
  return all;
}

/** A time of day comes once on each day: first occurrence, or first moment after a gap. */
function onceADay(all: readonly Wall[], hour: number, minute: number): number[] {
  const dates = [...new Set(all.map(({ date }) => date))].slice(1, -1);
  return dates.map((date) => {
    const later = all.filter(
      (one) => one.date === date && (one.hour > hour || (one.hour === hour && one.minute >= minute)),
    );
    const exact = later.find((one) => one.hour === hour && one.minute === minute);
    return (exact ?? later[0]!).at;
  });
}

const change = fc.constantFrom(...CHANGES);
/** The hours in which clocks change, and those around them. */
const hour = fc.integer({ min: 0, max: 4 });
const minute = fc.constantFrom(0, 1, 15, 30, 45, 59);

describe('over a daylight-saving change', () => {
  test('a time of day comes exactly once a day: not twice when it occurs twice, and after the gap when it does not occur', () => {
    fc.assert(
      fc.property(change, hour, minute, (where, atHour, atMinute) => {
        const all = minutesAround(where);
        const expected = onceADay(all, atHour, atMinute);
        const ticks = ticksIn(cron(`${atMinute} ${atHour} * * *`, where[0]), expected[0]!, expected.at(-1)!);
        expect(text(ticks)).toEqual(text(expected));
      }),
    );
  });

  test('a pattern of many times comes whenever the wall clock shows one, in both of two equal hours', () => {
    const minutes = fc.constantFrom('*/5', '*/20', '0', '7', '15,45');
    fc.assert(
      fc.property(change, minutes, fc.constantFrom('*', '1-3', '0,2'), (where, of, hours) => {
        const isOf = (value: number, pattern: string): boolean => {
          if (pattern === '*') return true;
          if (pattern.startsWith('*/')) return value % Number(pattern.slice(2)) === 0;
          const [from, to] = pattern.split('-').map(Number);
          if (to !== undefined) return value >= from! && value <= to;
          return pattern.split(',').map(Number).includes(value);
        };
        const all = minutesAround(where);
        const expected = all.filter((one) => isOf(one.minute, of) && isOf(one.hour, hours)).map(({ at }) => at);
        expect(text(ticksIn(cron(`${of} ${hours} * * *`, where[0]), all[0]!.at, all.at(-1)!.at))).toEqual(
          text(expected),
        );
      }),
      { numRuns: 25 },
    );
  });

  test('the next and the last tick do not depend on where one starts to look', () => {
    fc.assert(
      fc.property(
        change,
        fc.constantFrom(
          '30 2 * * *',
          '30 1 * * *',
          '*/20 * * * *',
          '15,45 1-3 * * *',
          '5 */2 * * *',
          '0 */10 1-2 * * *',
        ),
        fc.integer({ min: DAY, max: 4 * DAY }),
        (where, pattern, offset) => {
          const all = minutesAround(where);
          const timing = cron(pattern, where[0]);
          const ticks = ticksIn(timing, all[0]!.at, all.at(-1)!.at);
          const now = all[0]!.at + offset;
          expect(nextTick(timing, now)).toBe(ticks.find((tick) => tick > now));
          expect(lastTick(timing, now)).toBe(ticks.findLast((tick) => tick <= now));
        },
      ),
      { numRuns: 30 },
    );
  });

  test.each<[string, string, string, string[]]>([
    ['2026-03-28T12:00', 'Europe/Berlin', '30 2 * * *', ['2026-03-29T01:00', '2026-03-30T00:30']],
    ['2026-10-24T12:00', 'Europe/Berlin', '30 2 * * *', ['2026-10-25T00:30', '2026-10-26T01:30']],
    ['2026-03-07T12:00', 'America/New_York', '30 2 * * *', ['2026-03-08T07:00', '2026-03-09T06:30']],
    ['2026-10-31T12:00', 'America/New_York', '30 1 * * *', ['2026-11-01T05:30', '2026-11-02T06:30']],
    ['2026-03-28T12:00', 'Asia/Tokyo', '30 2 * * *', ['2026-03-28T17:30', '2026-03-29T17:30']],
  ])('after %s in %s, %s comes at %j', (from, zone, pattern, expected) => {
    const first = nextTick(cron(pattern, zone), Date.parse(`${from}Z`));
    expect(text([first!, nextTick(cron(pattern, zone), first!)!])).toEqual(expected);
  });
});

describe('a pattern', () => {
  test('may have seconds, and says what is wrong with it', () => {
    expect(ticksIn(cron('*/20 * * * * *'), 0, MINUTE)).toEqual([0, 20_000, 40_000, MINUTE]);
    for (const good of ['* * * * *', '0 0 L * *', '0 0 * * MON#1', '@daily', ' 5  4 * * sun '])
      expect(cronFault(good)).toBeUndefined();
    expect(cronFault('61 * * * *')).toMatch(/Invalid value for minute: 61/);
    for (const bad of ['', '* * *', '@reboot', '2030-01-23T00:00:00', '* * * * * * 2030'])
      expect(cronFault(bad)).toMatch(/five fields/);
    expect(cronFault('0 0 30 2 *')).toMatch(/never comes/);
  });

  test('is read in a zone of the IANA database only', () => {
    for (const good of ['UTC', 'Europe/Berlin', 'America/Argentina/Buenos_Aires']) expect(isTimeZone(good)).toBe(true);
    for (const bad of ['', '+01:00', 'Europe/Nowhere', 'Berlin time']) expect(isTimeZone(bad)).toBe(false);
  });
});

describe('a tick', () => {
  const MODES: Missed[] = ['skip', 'last', 'all'];
  const now = Date.parse('2026-06-01T12:00:30Z');

  test.each(MODES)('is due for a minute, whatever becomes of missed ones: %s', (missed) => {
    const due = dueTicks(every(10), missed, now - 50_000, now);
    expect(due).toEqual({ ticks: [5, 4, 3, 2, 1, 0].map((ago) => now - ago * 10_000), nextAt: now + 10_000 });
  });

  test('that was missed is given up, or made up for if it is the last, or in any case', () => {
    const due = (missed: Missed) =>
      dueTicks(cron('*/10 * * * *'), missed, now - 65 * MINUTE - 30_000, now + 5 * MINUTE);
    const nextAt = Date.parse('2026-06-01T12:10:00Z');
    expect(due('skip')).toEqual({ ticks: [], nextAt });
    expect(due('last')).toEqual({ ticks: [Date.parse('2026-06-01T12:00:00Z')], nextAt });
    expect(due('all')).toEqual({ ticks: ticksIn(every(600), now - HOUR - 5 * MINUTE, now), nextAt });
    expect(due('all').ticks).toHaveLength(7);
  });

  test('that was missed is made up for within a day, some ticks at a time, and none between is lost', () => {
    let nextAt: number | null = now - 30 * DAY;
    const made: number[] = [];
    for (let steps = 0; nextAt! <= now && steps < 1000; steps += 1) {
      const due = dueTicks(every(60), 'all', nextAt!, now);
      expect(due.ticks.length).toBeLessThanOrEqual(TICKS_AT_ONCE);
      made.push(...due.ticks);
      nextAt = due.nextAt;
    }
    expect(made).toEqual(ticksIn(every(60), now - DAY, now));
    expect(dueTicks(cron('0 0 1 1 *'), 'last', Date.parse('2025-01-01T00:00:00Z'), now).ticks).toEqual([
      Date.parse('2026-01-01T00:00:00Z'),
    ]);
  });

  test('does not come twice, and none is left out, however often somebody looks', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(every(1), every(7), cron('* * * * *'), cron('*/7 * * * * *', 'Europe/Berlin')),
        fc.constantFrom(...MODES),
        fc.array(fc.integer({ min: 0, max: 50_000 }), { maxLength: 8 }),
        (timing, missed, waits) => {
          const start = nextTick(timing, now)!;
          let [at, nextAt] = [start, start];
          const made: number[] = [];
          for (const wait of waits) {
            at += wait;
            for (;;) {
              if (nextAt > at) break;
              const due = dueTicks(timing, missed, nextAt, at);
              made.push(...due.ticks);
              nextAt = due.nextAt!;
            }
          }
          expect(made).toEqual(ticksIn(timing, start, at).slice(0, made.length));
          expect(made).toHaveLength(waits.length === 0 ? 0 : ticksIn(timing, start, at).length);
        },
      ),
    );
  });
});
