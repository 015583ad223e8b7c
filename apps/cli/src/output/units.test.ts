import { describe, expect, it } from 'vitest';
import { age, durationSeconds, futureTime, pastTime, rate } from './units.js';
import { inert, inertLine } from './inert.js';
import { bodyText } from './message-text.js';
import { Output, type Stream } from './output.js';

const NOW = Date.parse('2026-11-22T18:00:00Z');

describe('units', () => {
  it.each([
    ['90', 90],
    ['90s', 90],
    ['15m', 900],
    ['2h', 7200],
    ['7d', 604_800],
    ['0.5', 0.5],
  ])('reads the duration %s', (text, seconds) => expect(durationSeconds(text)).toBe(seconds));

  it.each(['', 'soon', '-1', '1w', '1h30m', 'Infinity'])('refuses the duration "%s"', (text) =>
    expect(() => durationSeconds(text)).toThrow(/no duration/),
  );

  it('reads a time as ISO 8601, or as how long ago or ahead', () => {
    expect(pastTime('2h', NOW)).toBe('2026-11-22T16:00:00.000Z');
    expect(futureTime('2h', NOW)).toBe('2026-11-22T20:00:00.000Z');
    expect(pastTime('2026-11-22T18:00:00+02:00', NOW)).toBe('2026-11-22T16:00:00.000Z');
    expect(() => pastTime('2026-11-22T18:00:00', NOW)).toThrow(/no time/);
    expect(() => pastTime('yesterday', NOW)).toThrow(/no time/);
  });

  it.each([
    [null, '–'],
    [0, '0 s'],
    [0.25, '250 ms'],
    [59, '59 s'],
    [840, '14 min'],
    [3599.9, '1 h'],
    [12_000, '3 h 20 min'],
    [1_000_000, '11 d'],
  ])('shows an age of %s seconds', (seconds, text) => expect(age(seconds)).toBe(text));

  it('shows rates with as many digits as people read', () => {
    expect([0, 0.04, 1.25, 12.5, 12_345].map(rate)).toEqual(['0', '< 0.1', '1.3', '13', '12,345']);
  });
});

describe('text of others', () => {
  it('moves no cursor, changes no colour and no direction, and rings no bell', () => {
    const hostile = '\u001b[31mred\u001b]0;title\u0007\u009b2J\u202egnp.exe\r\n';
    expect(inert(hostile)).toBe('\\x1b[31mred\\x1b]0;title\\x07\\x9b2J\\u202egnp.exe\\x0d\n');
    expect(inertLine('a\n\tb')).toBe('a\\n\\tb');
    expect(inert('größe 注文 🙂')).toBe('größe 注文 🙂');
  });

  it('is indented if it is JSON, and hex if it is binary', () => {
    expect(bodyText({ body: '{"a":1}', bodyEncoding: 'utf8' })).toBe('{\n  "a": 1\n}');
    expect(bodyText({ body: '17', bodyEncoding: 'utf8' })).toBe('17');
    expect(bodyText({ body: '{"a":"\\u001b[2J"}', bodyEncoding: 'utf8' })).not.toContain('\u001b');
    expect(bodyText({ body: 'AP8b', bodyEncoding: 'base64' })).toMatch(/^0000 {2}00 ff 1b +\.\.\.$/);
  });
});

describe('output', () => {
  const streams = (isTTY: boolean, columns = 40): Stream => ({ isTTY, columns }) as Stream;
  const make = (isTTY: boolean, env: NodeJS.ProcessEnv = {}, color = true): Output =>
    new Output({ json: false, color, env }, streams(isTTY), streams(isTTY));

  it('has colours on a terminal only, and obeys NO_COLOR and --no-color', () => {
    expect(make(true).paint.red('x')).toContain('\u001b[31m');
    for (const plain of [
      make(false),
      make(true, { NO_COLOR: '1' }),
      make(true, {}, false),
      make(true, { TERM: 'dumb' }),
    ])
      expect(plain.paint.red('x')).toBe('x');
    expect(make(true, { NO_COLOR: '' }).paint.red('x')).toContain('\u001b[31m');
  });

  it('cuts wide columns to the terminal, and nothing in a pipe', () => {
    const long = 'x'.repeat(100);
    const columns = [
      { title: 'ID', of: () => 'abc' },
      { title: 'BODY', of: () => long, wide: true },
    ];
    const lines = make(true, { NO_COLOR: '1' }).table(columns, [{}]).split('\n');
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(40);
    expect(lines[1]).toMatch(/^abc {2}x+…$/);
    expect(make(false).table(columns, [{}])).toContain(long);
  });
});
