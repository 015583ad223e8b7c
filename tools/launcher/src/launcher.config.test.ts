import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readHaConfig, readLauncherConfig } from './launcher.config.js';

describe('the settings of the launcher', () => {
  test('have defaults, and an empty one counts as unset', () => {
    expect(readLauncherConfig({ ROWMQ_DATABASE_URL: '', ROWMQ_PORT: '' })).toEqual({
      databaseUrl: undefined,
      databaseTls: undefined,
      databaseUntested: false,
      dataDir: resolve('.rowmq'),
      embeddedServer: undefined,
      serversDir: undefined,
      bufferPoolMegabytes: undefined,
      host: '127.0.0.1',
      port: 8080,
      adminKey: undefined,
      stopSeconds: 25,
    });
  });

  test('are refused all at once when they are wrong', () => {
    const wrong = { ROWMQ_PORT: '99999', ROWMQ_EMBEDDED_SERVER: 'oracle', ROWMQ_DATABASE_URL: 'http://localhost/x' };
    expect(() => readLauncherConfig(wrong)).toThrow(
      /ROWMQ_DATABASE_URL must look like mysql:[^]*ROWMQ_EMBEDDED_SERVER[^]*ROWMQ_PORT/,
    );
  });
});

describe('the settings of the processes that the launcher starts', () => {
  test('are refused before anything is started, each fault once', () => {
    const read = (env: Record<string, string>): unknown => {
      try {
        return readLauncherConfig(env);
      } catch (error) {
        return (error as Error).message.split('\n').slice(1);
      }
    };
    expect(
      read({ ROWMQ_STOP_SECONDS: '0', ROWMQ_WORKERS: 'two', ROWMQ_RETENTION_SECONDS: '1', ROWMQ_ADMIN_KEY: 'short' }),
    ).toEqual([
      '  ROWMQ_STOP_SECONDS must be a whole number from 1 to 600',
      '  ROWMQ_WORKERS must be a whole number from 1 to 64',
      expect.stringContaining('  ROWMQ_ADMIN_KEY must have at least 16 characters'),
      '  ROWMQ_RETENTION_SECONDS must be a whole number from 60 to 31536000',
    ]);
    expect(() => readLauncherConfig({ ROWMQ_HOST: '0.0.0.0' })).toThrow('Set ROWMQ_ADMIN_KEY');
    expect(() => readLauncherConfig({ ROWMQ_PARTITION_MINUTES: '1' })).toThrow('ROWMQ_PARTITIONS_AHEAD_MINUTES');
  });
});

describe('the settings of npm run ha:up', () => {
  test('are those of npm start', () => {
    const settings = { ROWMQ_PORT: '9000', ROWMQ_EMBEDDED_SERVER: 'mysql', ROWMQ_DATABASE_URL: '' };
    expect(readHaConfig(settings)).toEqual(readLauncherConfig(settings));
  });

  test('are refused if two brokers or two reapers cannot both have the port, and say what to do', () => {
    const ports = { ROWMQ_OPERATIONS_PORT: '9100', ROWMQ_PEER_PORT: '9200', ROWMQ_REAPER_PORT: '9300' };
    for (const [name, value] of Object.entries(ports))
      expect(() => readHaConfig({ [name]: value })).toThrow(
        new RegExp(`two brokers and two reapers[^]*${name} is ${value}`),
      );
    expect(() => readHaConfig(ports)).toThrow(/OPERATIONS_PORT[^]*PEER_PORT[^]*REAPER_PORT/);
    expect(() => readHaConfig({ ROWMQ_PORT: '65535' })).toThrow(/ROWMQ_PORT is 65535[^]*65534 or lower/);
    // The system chooses a port for each, and one server needs no second port.
    expect(() => readHaConfig({ ROWMQ_PEER_PORT: '0', ROWMQ_REAPER_PORT: '0', ROWMQ_PORT: '65534' })).not.toThrow();
    expect(() => readLauncherConfig({ ...ports, ROWMQ_PORT: '65535' })).not.toThrow();
  });

  test('are refused where they ask for a database other than its own, and say what to do', () => {
    expect(() =>
      readHaConfig({ ROWMQ_DATABASE_URL: 'mysql://u:secret@h/d', ROWMQ_EMBEDDED_SERVER: 'mariadb' }),
    ).toThrow(
      /three MySQL servers of its own[^]*ROWMQ_DATABASE_URL is set: unset it[^]*ROWMQ_EMBEDDED_SERVER is mariadb/,
    );
    expect(() => readHaConfig({ ROWMQ_DATABASE_URL: 'mysql://u:secret@h/d' })).not.toThrow(/secret|mariadb/);
  });
});
