// oxlint-disable-next-line no-restricted-imports -- a test runs on Node
import { ATTENTION_KINDS, type Attention } from '@rowmq/contract';
import { expect, test } from 'vitest';
import { duration, rate } from './format.js';
import { sentence, severityOf } from './words.js';

const NOTHING = { name: 'orders', count: null, limit: null, seconds: null, since: null, detail: null };
const today = new Date();
today.setHours(12, 3, 0, 0);

test.each<[Partial<Attention> & Pick<Attention, 'kind'>, string]>([
  [
    { kind: 'no-consumer', count: 1204, seconds: 840, since: today.toISOString() },
    'oldest message 14 min, no consumer since 12:03 (1,204 messages ready)',
  ],
  [
    { kind: 'no-consumer', count: 1, seconds: 61 },
    'oldest message 1 min 1 s, no consumer in the last hour (1 message ready)',
  ],
  [{ kind: 'nearly-full', count: 900, limit: 1000 }, 'nearly full: 900 messages, and the limit is 1,000'],
  [{ kind: 'paused', count: 0 }, 'paused for consumers'],
  [{ kind: 'dead-letters', count: 1 }, '1 dead letter'],
  [{ kind: 'schedule-failed', detail: 'The queue is full.' }, 'schedule failed: The queue is full.'],
])('%j says: %s', (reason, said) => {
  expect(sentence({ ...NOTHING, ...reason })).toBe(said);
});

test('every reason has a sentence and a severity', () => {
  for (const kind of ATTENTION_KINDS) {
    expect(sentence({ ...NOTHING, kind })).toMatch(/\w/);
    expect(severityOf({ ...NOTHING, kind })).toMatch(/^(?:bad|warn|note)$/);
  }
});

test.each([
  [0.04, '0 s'],
  [0.44, '0.4 s'],
  [59, '59 s'],
  [61, '1 min 1 s'],
  [840, '14 min'],
  [11_100, '3 h 5 min'],
  [90_000, '1 d 1 h'],
  [864_000, '10 d'],
])('%d seconds are %s', (seconds, text) => {
  expect(duration(seconds)).toBe(text);
});

test.each([
  [0, '0'],
  [0.01, '0.6/min'],
  [0.25, '0.3/s'],
  [12.4, '12/s'],
  [38_000, '38K/s'],
])('%d messages a second are %s', (perSecond, text) => {
  expect(rate(perSecond)).toBe(text);
});
