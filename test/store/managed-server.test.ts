import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EmbeddedServer } from '@rowmq/mysql-server';
import {
  BrowseRepository,
  checkServer,
  Database,
  type DatabaseSettings,
  MessageRepository,
  MinuteRepository,
  migrateDatabase,
  openDataSource,
  PartitionRepository,
  pendingMigrations,
  poolOf,
  QueueRepository,
  ReaperRepository,
  refuseMissingGrants,
  UnleasedRepository,
} from '@rowmq/store';
import { type Connection, createConnection } from 'mysql2/promise';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { ExpireDeliveries } from '../../apps/reaper/src/duties/expire-deliveries.js';
import { startServer, testServer } from '../support/servers.js';
import { bodies, message, SingleMessages } from '../support/store.js';
import { eventually } from '../support/wait.js';

/*
 * The core of RowMQ on a server that somebody else manages. The server has the settings that the
 * clouds impose, a user without global privileges, and session defaults that change statements.
 */

const USER = `app@'127.0.0.1'`;
const PASSWORD = 'rowmq-on-a-managed-server';
const GRANTS = 'SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, LOCK TABLES';

let folder: string;
let server: EmbeddedServer;
let admin: Connection;
let number = 0;
let database: string;
let settings: DatabaseSettings;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-managed-'));
  const isMysql = testServer().kind === 'mysql';
  server = await startServer({
    dataDir: folder,
    // As on RDS, Cloud SQL, Azure and DigitalOcean.
    extraArguments: [
      '--performance-schema=OFF',
      '--transaction-isolation=REPEATABLE-READ',
      '--default-time-zone=+05:30',
      '--character-set-server=latin1',
      ...(isMysql
        ? [
            '--sql-require-primary-key=ON',
            '--sql-generate-invisible-primary-key=ON',
            '--gtid-mode=ON',
            '--enforce-gtid-consistency=ON',
          ]
        : ['--gtid-strict-mode=ON', '--innodb-force-primary-key=ON', '--strict-password-validation=ON']),
    ],
  });
  admin = await createConnection({ uri: server.url, ...(isMysql && { ssl: { rejectUnauthorized: false } }) });
  if (isMysql) await admin.query('SET GLOBAL require_secure_transport = ON');
  await admin.query(`CREATE USER ${USER} IDENTIFIED BY '${PASSWORD}' ${isMysql ? 'REQUIRE SSL' : ''}`);
});

afterAll(async () => {
  admin.destroy();
  await server.kill();
  await rm(folder, { recursive: true, force: true });
});

beforeEach(async () => {
  number += 1;
  database = `rowmq_${number}`;
  await admin.query(`CREATE DATABASE ${database} CHARACTER SET utf8mb4`);
  await admin.query(`GRANT ${GRANTS} ON ${database}.* TO ${USER}`);
  const isMysql = testServer().kind === 'mysql';
  settings = {
    url: `mysql://app:${PASSWORD}@127.0.0.1:${server.port}/${database}`,
    ...(isMysql && { tls: { rejectUnauthorized: false, verifyIdentity: false } }),
  };
});

/** Migrates, and runs every verb and the reaper's main duties. */
async function expectCoreToWork(): Promise<void> {
  const { url, tls } = settings;
  await migrateDatabase(url, tls);
  expect(await pendingMigrations(url, tls)).toEqual([]);
  const dataSource = await openDataSource({ ...settings, poolSize: 4 });
  try {
    expect(await checkServer(dataSource)).toEqual([]);
    await refuseMissingGrants(dataSource);
    const store = new Database(dataSource);
    const queues = new QueueRepository(store);
    await queues.put('dead', {});
    const { queue } = await queues.put('orders', { maxReceives: 1, deadLetterQueue: 'dead' });
    const messages = new SingleMessages(new MessageRepository(store, undefined, queues));
    const texts = ['back\\slash', `'quoted' "twice" || ?`, 'Größe 漢字'];
    await messages.enqueue('orders', [
      ...texts.map((text) => message({ body: Buffer.from(text) })),
      message({ body: Buffer.from('short-lived'), expiresInSeconds: 1 }),
    ]);
    const leased = await messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 60 });
    expect(bodies(leased)).toEqual(texts);
    const receipts = leased;
    expect(await messages.extend(queue.id, receipts.slice(0, 1), { leaseSeconds: 90 })).toMatchObject({
      outcomes: [null],
    });
    expect(await messages.ack(queue.id, receipts.slice(0, 1))).toEqual([null]);
    const reason = `no 'größe' \\ "here"`;
    expect(await messages.nack(queue.id, receipts.slice(1, 2), { delaySeconds: 600, reason })).toEqual([null]);
    expect(await messages.batches.reject({ queueId: queue.id, receipts: receipts.slice(2) })).toEqual([null]);
    const browse = new BrowseRepository(store);
    const dead = await queues.get('dead');
    expect(await browse.stats(dead.id)).toMatchObject({ ready: 1 });
    await store.write('UPDATE delivery SET expires_at = 1 WHERE queue_id = ? AND nack_reason IS NULL', [queue.id]);
    await passReaper(store, queues, messages.batches);
    expect(await browse.stats(queue.id)).toMatchObject({ ready: 0, leased: 0, delayed: 1 });
    const [nacked] = await store.read<{ reason: string }>(
      'SELECT nack_reason AS reason FROM delivery WHERE nack_reason IS NOT NULL',
    );
    expect(nacked?.reason).toBe(reason);
    await queues.setPaused('orders', { paused: true });
    expect((await queues.getFresh('orders')).paused).toBe(true);
    // Another session sees all of it: it is committed.
    const [rows] = await admin.query(`SELECT name, paused FROM ${database}.queue ORDER BY name`);
    expect(rows).toEqual([
      { name: 'dead', paused: 0 },
      { name: 'orders', paused: 1 },
    ]);
  } finally {
    await dataSource.destroy();
  }
}

async function passReaper(store: Database, queues: QueueRepository, messages: MessageRepository): Promise<void> {
  const reaper = new ReaperRepository(store);
  expect(await reaper.acquireLease('managed', 30)).toBe(true);
  const partitions = new PartitionRepository(store);
  expect(await partitions.createMissing({ widthMinutes: 60, advanceMinutes: 180 })).toBeGreaterThan(0);
  const round = { signal: new AbortController().signal };
  expect(
    await new ExpireDeliveries(queues, new UnleasedRepository(store), messages, new MinuteRepository(store)).run(round),
  ).toBe(1);
  // A partition of the next hour is empty. A retention below zero makes it old enough.
  expect((await partitions.dropSettled({ retentionSeconds: -2 * 3600, locks: 1 })).length).toBeGreaterThan(0);
}

test('every verb, a pass of the reaper and the migration need no global privilege', async () => {
  await expectCoreToWork();
});

/**
 * Defaults that change what a statement means. `globals` are server-wide; `init` is what
 * `init_connect` runs for each session of a user without global privileges.
 */
const DEFAULTS: { title: string; globals: Record<string, string>; init?: string; only?: 'mysql' | 'mariadb' }[] = [
  { title: 'autocommit=0', globals: { autocommit: '0' } },
  { title: 'autocommit=0 by init_connect', globals: {}, init: 'SET autocommit = 0' },
  {
    title: 'chained and serializable transactions',
    globals: { completion_type: `'CHAIN'`, [isolationVariable()]: `'SERIALIZABLE'` },
  },
  {
    title: 'connections that end with their transaction, and transactions that are read-only',
    globals: { completion_type: `'RELEASE'`, [readOnlyVariable()]: '1' },
  },
  {
    title: 'ANSI quotes, no backslash escapes, || for text',
    globals: {
      sql_mode: `'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,IGNORE_SPACE,ONLY_FULL_GROUP_BY,HIGH_NOT_PRECEDENCE,NO_UNSIGNED_SUBTRACTION,PAD_CHAR_TO_FULL_LENGTH,TRADITIONAL'`,
    },
  },
  { title: 'an empty sql_mode', globals: { sql_mode: `''` } },
  {
    title: 'short limits on rows, joins, locks and time',
    globals: { sql_select_limit: '1', innodb_lock_wait_timeout: '1', lock_wait_timeout: '1', max_join_size: '1' },
    init: 'SET sql_safe_updates = 1, sql_big_selects = 0, sql_auto_is_null = 1, group_concat_max_len = 4, unique_checks = 0',
  },
  { title: 'a millisecond for a SELECT', globals: { max_execution_time: '1' }, only: 'mysql' },
  { title: 'a millisecond for a statement', globals: { max_statement_time: '0.001' }, only: 'mariadb' },
  {
    title: 'another time zone and another character set',
    globals: { time_zone: `'-11:30'` },
    init: 'SET NAMES latin1',
  },
];

function isolationVariable(): string {
  return testServer().kind === 'mysql' ? 'transaction_isolation' : 'tx_isolation';
}

function readOnlyVariable(): string {
  return testServer().kind === 'mysql' ? 'transaction_read_only' : 'tx_read_only';
}

test.each(DEFAULTS.filter(({ only }) => only === undefined || only === testServer().kind))(
  'a default of $title changes nothing for RowMQ',
  async ({ globals, init }) => {
    const defaults = { ...globals, ...(init !== undefined && { init_connect: `'${init}'` }) };
    for (const [name, value] of Object.entries(defaults)) await admin.query(`SET GLOBAL ${name} = ${value}`);
    try {
      await expectCoreToWork();
    } finally {
      for (const name of Object.keys(defaults)) await admin.query(`SET GLOBAL ${name} = DEFAULT`);
    }
  },
);

test('a session that lost its settings, as behind a proxy that shares connections, is closed and replaced', async () => {
  await migrateDatabase(settings.url, settings.tls);
  const dataSource = await openDataSource({ ...settings, poolSize: 1 });
  const store = new Database(dataSource);
  await store.write('DELETE FROM reaper_run');
  const session = await poolOf(dataSource).promise().getConnection();
  await session.query(`SET SESSION autocommit = 0, time_zone = '-07:00'`);
  session.release();
  await eventually('the loss is noticed', async () => {
    await store.write('DELETE FROM reaper_run');
    expect(await store.read('SELECT @@SESSION.time_zone AS zone')).toEqual([{ zone: expect.any(String) }]);
    return store.health.failures.has('SESSION_LOST');
  });
  expect(await store.read('SELECT @@SESSION.time_zone AS zone')).toEqual([{ zone: '+00:00' }]);
  await dataSource.destroy();
});

test('a user who lacks a privilege is told the GRANT to run, by a broker and by the migration', async () => {
  await admin.query(`REVOKE CREATE, INSERT ON ${database}.* FROM ${USER}`);
  await expect(migrateDatabase(settings.url, settings.tls)).rejects.toThrow(
    new RegExp(
      `CREATE command denied.* Let an administrator run GRANT ${GRANTS} ON \\\`${database}\\\`\\.\\* TO 'app'@'`,
    ),
  );
  await admin.query(`GRANT CREATE, INSERT ON ${database}.* TO ${USER}`);
  await admin.query(`DROP TABLE IF EXISTS ${database}.rowmq_migration`);
  await migrateDatabase(settings.url, settings.tls);
  await admin.query(`REVOKE DELETE ON ${database}.* FROM ${USER}`);
  const dataSource = await openDataSource({ ...settings, poolSize: 1 });
  await expect(refuseMissingGrants(dataSource)).rejects.toThrow(/DELETE command denied.* run GRANT /);
  await dataSource.destroy();
  await admin.query(`REVOKE ALL ON ${database}.* FROM ${USER}`);
  await expect(openDataSource(settings)).rejects.toThrow(
    /Access denied for user 'app'@.* to database .* run GRANT .*If the database does not exist, create it first/,
  );
});
