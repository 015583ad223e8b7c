import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createConnection } from 'mysql2/promise';
import { describe, expect, test } from 'vitest';
import {
  checkServer,
  judgeGalera,
  judgeGroup,
  judgeProduct,
  judgeServer,
  migrateDatabase,
  openDataSource,
} from '@rowmq/store';
import { startLyingDatabase } from '../support/lying-database.js';
import { createMigratedDatabase, startApp } from '../support/processes.js';
import { createDatabase, startServer, testServer } from '../support/servers.js';

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
    '8.0.18',
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

  test.each(['8.0.19', '8.0.46', '8.0.42-0ubuntu0.24.04.2', '8.3.0'])(
    'refuses version %s as never tested, and accepts it with a warning if a setting says so',
    (version) => {
      const judge = (): unknown => judgeServer({ ...FINE, version });
      expect(judge).toThrow(`The server is MySQL ${version}, which RowMQ's tests never ran on. RowMQ needs MySQL 8.4`);
      expect(judge).toThrow('set ROWMQ_DATABASE_UNTESTED=allow');
      expect(judge).not.toThrow('too old');
      expect(judgeServer({ ...FINE, version, untestedAllowed: true })).toEqual([
        expect.stringContaining('never ran on'),
      ]);
    },
  );

  test('refuses a version that lacks a statement, whatever the setting says', () => {
    expect(() => judgeServer({ ...FINE, version: '5.7.44', untestedAllowed: true })).toThrow('too old');
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

/** As these products announce themselves in their sources, clients and manuals. */
const PRODUCTS = [
  ['Vitess', '8.4.6-Vitess', 'Version: 23.0.0 (Git revision 0c2f3fc branch HEAD)'],
  ['PlanetScale', '8.0.40-PlanetScale', 'vtgate'],
  ['TiDB', '8.0.11-TiDB-v8.5.3', 'TiDB Server (Apache License 2.0) Community Edition, MySQL 8.0 compatible'],
  ['TiDB', '9.7.0', 'TiDB Server (Apache License 2.0) Community Edition, MySQL 8.0 compatible'],
  ['OceanBase', '5.7.25-OceanBase-v4.2.5.4', 'OceanBase 4.2.5.4 (r104000022025)'],
  ['OceanBase', '5.6.25-OBProxy-3.2.0', ''],
  ['NDB Cluster', '8.4.6-cluster', 'MySQL Cluster Community Server - GPL'],
  ['NDB Cluster', '5.7.17-ndb-7.5.5-cluster-gpl', 'MySQL Cluster Community Server (GPL)'],
  ['PolarDB-X', '5.6.29-TDDL-5.4.12-16349923', 'Source distribution'],
  ['without InnoDB', '8.0.33', 'StarRocks version 3.3.0'],
] as const;

describe('the check of the product at boot', () => {
  test.each(PRODUCTS)('refuses %s by name and with the reason (%s, %s)', (name, version, comment) => {
    const judge = (): unknown => judgeProduct([version, comment]);
    expect(judge).toThrow(new RegExp(`^The server is .*${name}.*${version}.*RowMQ cannot run on it: .{30,}`));
  });

  test('accepts MySQL, MariaDB, Percona Server and XtraDB Cluster, and Aurora', () => {
    for (const [version, comment] of [
      ['9.7.4', 'MySQL Community Server - GPL'],
      ['8.4.7', 'Source distribution'],
      ['8.4.6-6', 'Percona Server (GPL), Release 6, Revision 9927abd3'],
      ['8.4.3-3.1', 'Percona XtraDB Cluster (GPL), Release rel3, Revision b84ce1a, WSREP version 26.1.4.3'],
      ['11.8.3-MariaDB-0+deb13u1-log', ' from Debian'],
      ['10.11.19-MariaDB-1:10.11.19+maria~ubu2204', 'mariadb.org binary distribution'],
    ] as const)
      expect(() => judgeProduct([version, comment], 'InnoDB')).not.toThrow();
  });

  test('refuses a server whose tables are NDB’s by default, whatever it announces', () => {
    expect(() => judgeProduct([], 'ndbcluster')).toThrow('The server is NDB Cluster.');
  });

  test.each(PRODUCTS.slice(0, 7))('reads them from a server that announces %s (%s)', async (name, version, comment) => {
    const proxy = await startLyingDatabase(testServer().url, { version, comment });
    const dataSource = await openDataSource({ url: proxy.url, poolSize: 1 });
    await expect(checkServer(dataSource)).rejects.toThrow(name);
    await dataSource.destroy();
    await proxy.close();
  });

  test('lets a broker refuse Vitess at boot', async () => {
    const database = await createMigratedDatabase();
    const vitess = await startLyingDatabase(database.url, { version: '8.4.6-Vitess', comment: '' });
    await expect(startApp('broker', { ROWMQ_DATABASE_URL: vitess.url, ROWMQ_PORT: '0' })).rejects.toThrow(
      /exited[^]*rowmq broker: The server is Vitess or PlanetScale .*LOCK TABLES with success and locks nothing/,
    );
    await expect(migrateDatabase(vitess.url)).rejects.toThrow('The server is Vitess or PlanetScale');
    await vitess.close();
    await database.drop();
  });
});

describe('the check of a Galera node at boot', () => {
  test('warns that all brokers must write to one node', () => {
    expect(judgeGalera(new Map())).toEqual([]);
    expect(judgeGalera(new Map([['wsrep_on', 'OFF']]))).toEqual([]);
    const node = new Map([['wsrep_on', 'ON']]);
    expect(judgeGalera(node)).toEqual([expect.stringMatching(/^wsrep_on is ON: .*write to the same node/)]);
    for (const mode of ['MASTER', 'PERMISSIVE', 'DISABLED'])
      expect(judgeGalera(new Map([...node, ['pxc_strict_mode', mode]]))).toHaveLength(1);
    expect(() => judgeGalera(new Map([...node, ['pxc_strict_mode', 'ENFORCING']]))).toThrow('set it to MASTER');
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
    const server = await startServer({ dataDir });
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
