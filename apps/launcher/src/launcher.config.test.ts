import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readLauncherConfig } from './launcher.config.js';

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
