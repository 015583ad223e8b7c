import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createConnection } from 'mysql2/promise';
import { describe, expect, test } from 'vitest';
import { EmbeddedServer } from '@rowmq/mysql-server';
import { checkServer, judgeGroup, judgeServer, migrateDatabase, openDataSource } from '@rowmq/store';
import { startApp } from '../support/processes.js';
import { createDatabase, serverProgram } from '../support/servers.js';

const FINE = {
  version: '9.7.0',
  logBin: 1,
  binlogFormat: 'ROW',
  flushLog: 1,
  syncBinlog: 1,
  maxAllowedPacket: 2 ** 24,
};

describe('the check of a server at boot', () => {
  test.each([
    '8.4.0',
    '8.4.7-commercial',
    '9.0.1',
    '9.7.4-2',
    '10.0.0',
    '10.6.0-MariaDB',
    '5.5.5-10.6.21-MariaDB-log',
    '10.11.19-MariaDB-0+deb12u1-log',
    '11.4.5-MariaDB',
    '12.0.2-MariaDB',
  ])('accepts version %s', (version) => expect(judgeServer({ ...FINE, version })).toEqual([]));

  test.each([
    '5.7.44-log',
    '8.0.46',
    '8.3.0',
    '10.5.29-MariaDB',
    '5.5.5-10.5.8-MariaDB',
    '10.4.0-MariaDB-log',
    '5.5.68-MariaDB',
  ])('refuses version %s as too old and names the versions that RowMQ needs', (version) => {
    const judge = (): unknown => judgeServer({ ...FINE, version });
    expect(judge).toThrow(version);
    expect(judge).toThrow('too old');
    expect(judge).toThrow('MySQL 8.4 or MariaDB 10.6');
  });

  test('refuses a max_allowed_packet that is too small for a full batch', () => {
    expect(() => judgeServer({ ...FINE, maxAllowedPacket: 2 ** 24 - 1024 })).toThrow('needs 16777216 (16 MiB)');
  });

  test('refuses a statement binlog, and ignores binlog_format if there is no binlog', () => {
    expect(() => judgeServer({ ...FINE, binlogFormat: 'STATEMENT' })).toThrow('set binlog_format=ROW');
    expect(judgeServer({ ...FINE, binlogFormat: 'MIXED' })).toEqual([]);
    expect(judgeServer({ ...FINE, logBin: 0, binlogFormat: 'STATEMENT', syncBinlog: 0 })).toEqual([]);
  });

  test('warns of each setting that weakens durability by its name', () => {
    expect(judgeServer({ ...FINE, flushLog: 2 })).toEqual([
      expect.stringMatching(/^innodb_flush_log_at_trx_commit is 2: .*set it to 1/),
    ]);
    expect(judgeServer({ ...FINE, syncBinlog: 0 })).toEqual([
      expect.stringMatching(/^sync_binlog is 0: .*set it to 1/),
    ]);
    expect(judgeServer({ ...FINE, flushLog: 0, syncBinlog: 1000 })).toHaveLength(2);
  });
});

describe('the check of a replication group at boot', () => {
  const judge = (variables: Record<string, string>): string[] =>
    judgeGroup(
      new Map(
        Object.entries({
          group_name: 'aaaaaaaa-0000-4000-8000-000000000000',
          single_primary_mode: 'ON',
          consistency: 'BEFORE_ON_PRIMARY_FAILOVER',
          unreachable_majority_timeout: '5',
          ...variables,
        }).map(([name, value]) => [`group_replication_${name}`, value]),
      ),
    );

  test('requires nothing of a server outside a group', () => {
    expect(judgeGroup(new Map())).toEqual([]);
    expect(judge({ group_name: '', single_primary_mode: 'OFF', consistency: 'EVENTUAL' })).toEqual([]);
  });

  test('refuses a group with several primaries', () => {
    expect(() => judge({ single_primary_mode: 'OFF' })).toThrow('group_replication_single_primary_mode=ON');
  });

  test('warns by name of each setting that loses or blocks messages after a failover or a network cut', () => {
    expect(judge({})).toEqual([]);
    expect(judge({ consistency: 'BEFORE' })).toEqual([]);
    expect(judge({ consistency: 'EVENTUAL' })).toEqual([
      expect.stringMatching(/^group_replication_consistency is EVENTUAL: .*BEFORE_ON_PRIMARY_FAILOVER/),
    ]);
    expect(judge({ unreachable_majority_timeout: '0' })).toEqual([
      expect.stringMatching(/^group_replication_unreachable_majority_timeout is 0: /),
    ]);
  });
});

describe('a process at boot', () => {
  test.each(['broker', 'reaper'] as const)(
    'the %s refuses a database without tables and names the command that creates them',
    async (name) => {
      const database = await createDatabase();
      const started = startApp(name, { ROWMQ_DATABASE_URL: database.url, ROWMQ_PORT: '0' });
      await expect(started).rejects.toThrow(
        /exited[^]*lacks 1 migration\(s\): InitialSchema1700000000000\. Run `npm run migrate`/,
      );
      await expect(started).rejects.not.toThrow(/\n\s+at /);
      await database.drop();
    },
  );

  test('refuses a server with a statement binlog and says what to set, and so does a migration', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'rowmq-boot-'));
    const program = await serverProgram();
    const server = await EmbeddedServer.start({ program, dataDir, bufferPoolMegabytes: 128 });
    try {
      await migrateDatabase(server.url);
      const connection = await createConnection({ uri: server.url });
      await connection.query(`SET GLOBAL binlog_format = 'STATEMENT', GLOBAL sync_binlog = 0`);
      await expect(startApp('reaper', { ROWMQ_DATABASE_URL: server.url })).rejects.toThrow(
        /exited[^]*rowmq reaper: .*set binlog_format=ROW/,
      );
      await expect(startApp('broker', { ROWMQ_DATABASE_URL: server.url, ROWMQ_PORT: '0' })).rejects.toThrow(
        /exited[^]*rowmq broker: .*set binlog_format=ROW/,
      );
      await expect(migrateDatabase(server.url)).rejects.toThrow('set binlog_format=ROW');
      await connection.query(`SET GLOBAL binlog_format = 'ROW'`);
      const dataSource = await openDataSource({ url: server.url, poolSize: 1 });
      expect(await checkServer(dataSource)).toEqual([expect.stringContaining('sync_binlog is 0')]);
      await dataSource.destroy();
      const reaper = await startApp('reaper', { ROWMQ_DATABASE_URL: server.url });
      expect(reaper.output()).toContain('sync_binlog is 0');
      await reaper.stop();
      await connection.end();
    } finally {
      await server.kill();
      await rm(dataDir, { recursive: true, force: true });
    }
  });
});
