import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readHaConfig, readLauncherConfig } from './launcher.config.js';

describe('the settings of the launcher', () => {
  test('have defaults, and an empty one counts as unset', () => {
    expect(readLauncherConfig({ ROWMQ_DATABASE_URL: '', ROWMQ_PORT: '' })).toEqual({
      databaseUrl: undefined,
      databaseTls: undefined,
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

describe('the settings of npm run ha:up', () => {
  test('are those of npm start', () => {
    const settings = { ROWMQ_PORT: '9000', ROWMQ_EMBEDDED_SERVER: 'mysql', ROWMQ_DATABASE_URL: '' };
    expect(readHaConfig(settings)).toEqual(readLauncherConfig(settings));
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
