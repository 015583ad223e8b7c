import { z } from 'zod';
import { describe, expect, test } from 'vitest';
import { databaseUrl } from './database-url.js';
import { KNOWN_SETTINGS, readSettings, SettingsError, unknownSettings, wholeNumber } from './settings.js';

describe('settings', () => {
  const shape = { ROWMQ_PORT: wholeNumber(0, 65_535).default(8080), ROWMQ_DATABASE_URL: databaseUrl };
  const url = 'mysql://u:p@h:3306/db';

  test('are read from the variables they name, and only from them', () => {
    const env = { ROWMQ_PORT: '17', ROWMQ_DATABASE_URL: url, PATH: '/bin', ROWMQ_OTHER: 'x' };
    expect(readSettings(shape, env)).toEqual({ ROWMQ_PORT: 17, ROWMQ_DATABASE_URL: url });
  });

  test('that are empty count as absent', () => {
    expect(readSettings(shape, { ROWMQ_PORT: '', ROWMQ_DATABASE_URL: url }).ROWMQ_PORT).toBe(8080);
    expect(() => readSettings(shape, { ROWMQ_DATABASE_URL: '' })).toThrow('ROWMQ_DATABASE_URL is needed');
  });

  test('that are invalid are all listed at once, without their values', () => {
    const read = (): unknown =>
      readSettings(
        { ...shape, ROWMQ_KEY: z.string().min(9, 'is short') },
        {
          ROWMQ_PORT: 'x1',
          ROWMQ_DATABASE_URL: 'secret',
          ROWMQ_KEY: 'hunter2',
        },
      );
    expect(read).toThrow(SettingsError);
    expect(read).toThrow(
      /ROWMQ_PORT must be a whole number from 0 to 65535\n {2}ROWMQ_DATABASE_URL must look.*\n {2}ROWMQ_KEY is short$/,
    );
    expect(read).not.toThrow(/secret|hunter2/);
  });

  test('with RowMQ’s prefix that no process knows are reported, and others are not', () => {
    expect(unknownSettings({ ROWMQ_PROT: '1', ROWMQ_PORT: '1', PORT: '1', rowmq_x: '1' })).toEqual(['ROWMQ_PROT']);
    expect(unknownSettings({ ROWMQ_URL: 'http://a:1', ROWMQ_KEY: 'k' })).toEqual([]);
    expect(unknownSettings(Object.fromEntries(KNOWN_SETTINGS.map((name) => [name, '1'])))).toEqual([]);
  });
});

describe('a whole number', () => {
  const number = wholeNumber(1, 100);
  test.each([
    ['1', 1],
    ['100', 100],
    ['007', 7],
  ])('can be %s', (text, value) => {
    expect(number.parse(text)).toBe(value);
  });
  test.each(['0', '101', '-1', '1.5', '1e2', '0x10', ' 1', '1 ', '', '١', '9'.repeat(400)])('cannot be %j', (text) => {
    expect(number.safeParse(text)).toMatchObject({ success: false });
  });
});
