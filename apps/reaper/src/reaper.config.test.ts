import { describe, expect, test } from 'vitest';
import { readReaperConfig } from './reaper.config.js';

const URL = 'mysql://rowmq:secret@db:3306/rowmq';

describe("the reaper's settings", () => {
  test('have defaults for all but the database', () => {
    expect(readReaperConfig({ ROWMQ_DATABASE_URL: URL, ROWMQ_RETENTION_SECONDS: '' })).toEqual({
      databaseUrl: URL,
      databaseTls: undefined,
      databaseUntested: false,
      poolSize: 4,
      host: '127.0.0.1',
      port: undefined,
      intervalSeconds: 5,
      retentionSeconds: 3600,
      jobRetentionSeconds: 604_800,
      partitionMinutes: 60,
      partitionsAheadMinutes: 2880,
      auditDays: 90,
      stopSeconds: 25,
    });
  });

  test('come from the environment, but never fewer connections than the duties need', () => {
    const environment = {
      ROWMQ_DATABASE_URL: URL,
      ROWMQ_RETENTION_SECONDS: '60',
      ROWMQ_PARTITION_MINUTES: '1',
      ROWMQ_PARTITIONS_AHEAD_MINUTES: '400',
      ROWMQ_DATABASE_POOL_SIZE: '1',
    };
    expect(readReaperConfig(environment)).toMatchObject({
      retentionSeconds: 60,
      partitionMinutes: 1,
      partitionsAheadMinutes: 400,
      poolSize: 4,
    });
    expect(readReaperConfig({ ...environment, ROWMQ_DATABASE_POOL_SIZE: '9' }).poolSize).toBe(9);
  });

  test('that are invalid are all listed at once', () => {
    const read = (): unknown =>
      readReaperConfig({
        ROWMQ_RETENTION_SECONDS: '59',
        ROWMQ_PARTITION_MINUTES: '1.5',
        ROWMQ_REAPER_INTERVAL_SECONDS: '0',
      });
    for (const name of ['DATABASE_URL', 'RETENTION_SECONDS', 'PARTITION_MINUTES', 'REAPER_INTERVAL_SECONDS'])
      expect(read).toThrow(`ROWMQ_${name}`);
  });

  test('that would create too many partitions are refused', () => {
    expect(() =>
      readReaperConfig({
        ROWMQ_DATABASE_URL: URL,
        ROWMQ_PARTITION_MINUTES: '5',
        ROWMQ_PARTITIONS_AHEAD_MINUTES: '2001',
      }),
    ).toThrow(/401 partitions ahead, more than 400/);
  });
});
