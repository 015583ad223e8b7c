import { RowmqError } from '@rowmq/contract';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { ReadOnlyServerError, TryAgain } from './database-errors.js';
import { DatabaseHealth } from './database-health.js';

const failure = (code: string, errno: number, message = code): Error =>
  Object.assign(new Error(message), { code, errno });
const refused = (): Error => failure('ECONNREFUSED', -111, 'connect ECONNREFUSED 127.0.0.1:3306');
const deadlock = (): Error => failure('ER_LOCK_DEADLOCK', 1213, 'Deadlock found');

let health: DatabaseHealth;
let lines: string[];

beforeEach(() => {
  vi.useFakeTimers();
  lines = [];
  health = new DatabaseHealth({
    log: (line) => lines.push(`log ${line}`),
    warn: (line) => lines.push(`warn ${line}`),
  });
});
afterEach(() => {
  vi.useRealTimers();
});

describe('DatabaseHealth', () => {
  test('logs trouble once at its start with the driver’s reason, and once at its end with its duration', () => {
    health.failed(failure('ER_CON_COUNT_ERROR', 1040, 'Too many connections'));
    expect(lines.splice(0)).toEqual([
      'warn Trouble with the database: ER_CON_COUNT_ERROR (1040): Too many connections. It is tried again.',
    ]);
    for (let tries = 1; tries < 1000; tries += 1) health.failed(refused());
    vi.advanceTimersByTime(12_000);
    for (let answers = 0; answers < 1000; answers += 1) health.succeeded();
    expect(lines).toEqual([]);
    vi.advanceTimersByTime(5000);
    expect(lines).toEqual(['log The database answers again: the trouble lasted 12.0 s, in which 1000 tries failed.']);
    vi.advanceTimersByTime(60_000);
    health.succeeded();
    expect(lines).toHaveLength(1);
  });

  test('does not repeat a code that the driver’s message contains', () => {
    health.failed(refused());
    expect(lines).toEqual(['warn Trouble with the database: connect ECONNREFUSED 127.0.0.1:3306. It is tried again.']);
  });

  test('logs two lines in total while failures and answers alternate', () => {
    for (let times = 0; times < 100; times += 1) {
      health.failed(refused());
      vi.advanceTimersByTime(100);
      health.succeeded();
      vi.advanceTimersByTime(4800);
    }
    expect(lines.splice(0)).toHaveLength(1);
    vi.advanceTimersByTime(5000);
    expect(lines).toEqual([expect.stringMatching(/lasted 485\.2 s, in which 100 tries failed/)]);
  });

  test('reports the database as up from an answer until the next failure', () => {
    expect(health.isUp).toBe(true);
    health.failed(refused());
    expect(health.isUp).toBe(false);
    health.succeeded();
    expect(health.isUp).toBe(true);
    health.failed(refused());
    expect(health.isUp).toBe(false);
    vi.advanceTimersByTime(60_000);
    expect(health.isUp).toBe(false);
  });

  test('does not treat deadlocks, invalid values and errors of a request’s own work as trouble', () => {
    health.failed(deadlock());
    health.failed(failure('ER_DATA_TOO_LONG', 1406));
    health.failed(new RowmqError('queue-full', 'full'));
    health.failed(new TryAgain('not visible yet'));
    health.failed(new TypeError('a defect'));
    health.failed(undefined);
    expect({ lines, up: health.isUp }).toEqual({ lines: [], up: true });
    expect(Object.fromEntries(health.failures)).toEqual({ ER_LOCK_DEADLOCK: 1, ER_DATA_TOO_LONG: 1 });
  });

  test.each([
    ['ECONNREFUSED', refused()],
    ['READ_ONLY', new ReadOnlyServerError()],
    ['ER_ACCESS_DENIED_ERROR', failure('ER_ACCESS_DENIED_ERROR', 1045)],
    ['ER_DISK_FULL', failure('ER_DISK_FULL', 1021)],
    ['PROTOCOL_SEQUENCE_TIMEOUT', Object.assign(new Error('timeout'), { code: 'PROTOCOL_SEQUENCE_TIMEOUT' })],
    ['ECONNRESET', Object.assign(new Error('no host takes writes'), { driverError: failure('ECONNRESET', -104) })],
    ['overloaded', new RowmqError('overloaded', 'No connection became free.')],
    ['other', new Error('Queue limit reached.')],
  ])('counts %s as a failure that means trouble', (code, error) => {
    health.failed(error);
    expect([...health.failures]).toEqual([[code, 1]]);
    expect(health.isUp).toBe(false);
  });

  test('counts failures under a bounded number of codes', () => {
    for (let number = 0; number < 1000; number += 1) health.failed(failure(`ER_${number}`, 2000 + number));
    expect(health.failures.size).toBeLessThanOrEqual(51);
    expect(health.failures.get('ER_0')).toBe(1);
    expect(health.failures.get('other')).toBe(950);
  });
});

describe('DatabaseHealth and a new primary', () => {
  test('logs a new primary at once', () => {
    health.moved('b:3306');
    expect(lines).toEqual(['log The primary is now b:3306.']);
    vi.advanceTimersByTime(6000);
    health.moved('a:3306');
    expect(lines).toEqual(['log The primary is now b:3306.', 'log The primary is now a:3306.']);
  });

  test('logs a changing primary at most once in five seconds, and the last line names the current one', () => {
    for (let moves = 0; moves < 100; moves += 1) {
      health.moved(moves % 2 === 0 ? 'b' : 'a');
      vi.advanceTimersByTime(100);
    }
    vi.advanceTimersByTime(30_000);
    expect(lines.length).toBeLessThanOrEqual(4);
    expect(lines.at(-1)).toBe('log The primary is now a.');
  });
});
