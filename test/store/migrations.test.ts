import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { DataSource } from 'typeorm';
import { migrateDatabase, openDataSource, pendingMigrations, revertDatabase } from '@rowmq/store';
import { MIGRATIONS } from '@rowmq/migrations';
import { refuseNewerSchema } from '../../libs/store/src/database/migrate.js';
import { createDatabase, type TestDatabase } from '../support/servers.js';

const NAMES = MIGRATIONS.map((Migration) => new Migration().name);
const TABLES = [
  'api_key',
  'audit',
  'broker',
  'dashboard_session',
  'deduplication',
  'delivery',
  'job',
  'message_group',
  'pack',
  'pack_overflow',
  'queue',
  'queue_minute',
  'reaper_lease',
  'reaper_run',
  'schedule',
  'subscription',
  'topic',
  'withdrawn',
];

let database: TestDatabase;

beforeEach(async () => {
  database = await createDatabase();
});

afterEach(() => database.drop());

async function query(sql: string): Promise<Record<string, string>[]> {
  const connection = await createConnection({ uri: database.url });
  try {
    const [rows] = await connection.query<RowDataPacket[]>(sql);
    return rows;
  } finally {
    await connection.end();
  }
}

/** Every table's CREATE statement, as the server prints it. */
async function schema(): Promise<Record<string, string>> {
  const tables = await query(
    'SELECT table_name AS name FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY table_name',
  );
  const definitions: Record<string, string> = {};
  for (const { name } of tables) {
    const [row] = await query(`SHOW CREATE TABLE ${name}`);
    definitions[name!] = row!['Create Table']!.replace(/ AUTO_INCREMENT=\d+/, '');
  }
  return definitions;
}

describe('migrations', () => {
  test('give every table a primary key, which Group Replication needs, and no foreign keys', async () => {
    await migrateDatabase(database.url);
    const keys = await query(
      `SELECT t.table_name AS name, GROUP_CONCAT(c.constraint_type ORDER BY c.constraint_type) AS kinds
       FROM information_schema.tables t
       LEFT JOIN information_schema.table_constraints c
         ON c.table_schema = t.table_schema AND c.table_name = t.table_name
       WHERE t.table_schema = DATABASE()
       GROUP BY t.table_name
       ORDER BY t.table_name`,
    );
    expect(keys.map(({ name }) => name)).toEqual([...TABLES, 'rowmq_migration'].toSorted());
    for (const { name, kinds } of keys) expect(kinds, name).toMatch(/^PRIMARY KEY(,UNIQUE)*$/);
  });

  test('create the tables, drop them on revert and create the same ones again', async () => {
    expect(await pendingMigrations(database.url)).toEqual(NAMES);
    expect(await migrateDatabase(database.url)).toEqual(NAMES);
    expect(await pendingMigrations(database.url)).toEqual([]);
    const first = await schema();
    expect(Object.keys(first)).toEqual([...TABLES, 'rowmq_migration'].toSorted());

    expect(await revertDatabase(database.url, NAMES.length + 1)).toEqual(NAMES.toReversed());
    expect(Object.keys(await schema())).toEqual(['rowmq_migration']);
    expect(await pendingMigrations(database.url)).toEqual(NAMES);
    expect(await revertDatabase(database.url)).toEqual([]);

    expect(await migrateDatabase(database.url)).toEqual(NAMES);
    expect(await schema()).toEqual(first);
    expect(await query('SELECT name, holder, expires_at FROM reaper_lease')).toEqual([
      { name: 'reaper', holder: null, expires_at: 0 },
    ]);
    expect(await migrateDatabase(database.url)).toEqual([]);
  });

  test('report an interrupted first migration with the tables to drop, and do not touch other tables', async () => {
    await query('CREATE TABLE orders (id INT PRIMARY KEY)');
    await query('CREATE TABLE pack (id INT PRIMARY KEY)');
    await query('CREATE TABLE queue (id INT PRIMARY KEY)');
    const refusal: unknown = await migrateDatabase(database.url).catch((error: unknown) => error);
    expect(refusal).toMatchObject({ name: 'StartupError', message: expect.stringContaining('(pack, queue)') });
    const [drop] = /DROP TABLE [\w, ]+(?=\))/.exec((refusal as Error).message) as [string];
    await query(drop);
    expect(await migrateDatabase(database.url)).toEqual(NAMES);
    expect(Object.keys(await schema())).toEqual([...TABLES, 'orders', 'rowmq_migration'].toSorted());
  });

  test('run once when several processes start at the same time', async () => {
    const applied = await Promise.all([1, 2, 3, 4].map(() => migrateDatabase(database.url)));
    expect(applied.filter((names) => names.length > 0)).toEqual([NAMES]);
    expect(await query('SELECT name FROM rowmq_migration')).toEqual(NAMES.map((name) => ({ name })));
  });

  test('say beforehand what they block, once', async () => {
    const lines: string[] = [];
    await migrateDatabase(database.url, undefined, { announce: (line) => lines.push(line) });
    expect(lines).toEqual(MIGRATIONS.map((Migration) => `${new Migration().name} ${new Migration().blocks}.`));
    for (const line of lines) expect(line).toContain('blocks');
    await migrateDatabase(database.url, undefined, { announce: (line) => lines.push(line) });
    expect(lines).toHaveLength(NAMES.length);
  });

  test('keep a process out that does not know them, unless they only add what it leaves alone', async () => {
    await migrateDatabase(database.url);
    const note = async (name: string): Promise<unknown> =>
      query(`INSERT INTO rowmq_migration (timestamp, name) VALUES (${Date.now()}, '${name}')`);
    const dataSource = await openDataSource({ url: database.url, poolSize: 1 });
    expect(await refuseNewerSchema(dataSource)).toEqual([]);
    await note('ExpandChart1999999999999');
    expect(await refuseNewerSchema(dataSource)).toEqual(['ExpandChart1999999999999']);
    expect(await migrateDatabase(database.url)).toEqual([]);
    await note('SplitPack2000000000000');
    await expect(refuseNewerSchema(dataSource)).rejects.toThrow(
      'newer than this version of RowMQ, which does not know the migration(s) SplitPack2000000000000.',
    );
    await expect(migrateDatabase(database.url)).rejects.toThrow('SplitPack2000000000000');
    await dataSource.destroy();
  });

  test('run on a database with the longest possible name', async () => {
    const name = `${database.name}_`.padEnd(64, 'x');
    await query(`CREATE DATABASE ${name}`);
    const url = new URL(database.url);
    url.pathname = `/${name}`;
    try {
      expect(await migrateDatabase(url.href)).toEqual(NAMES);
    } finally {
      await query(`DROP DATABASE ${name}`);
    }
  });

  test('give every delivery a token of fixed length, so that a claim does not lengthen the row', async () => {
    await migrateDatabase(database.url);
    const insert = (token: string) =>
      query(
        `INSERT INTO delivery (queue_id, pack_id, lease_token, part, members, priority_rank, available_at, expires_at, receive_count)
         VALUES (1, 1, ${token}, 0, 1, 5, 1, 2, 3)`,
      );
    await expect(insert('NULL')).rejects.toThrow(/lease_token/);
    await insert("''");
    expect(await query('SELECT HEX(lease_token) AS token FROM delivery')).toEqual([{ token: '0000000000000000' }]);
  });

  test('store every possible set of members, and the payload of the largest message', async () => {
    await migrateDatabase(database.url);
    await query(
      `INSERT INTO delivery (queue_id, pack_id, lease_token, part, members, priority_rank, available_at, expires_at, receive_count)
       VALUES (1, 1, '', 0, 4294967295, 5, 1, 2, 3)`,
    );
    expect(await query('SELECT members, BIT_COUNT(members) AS count FROM delivery')).toEqual([
      { members: 4_294_967_295, count: 32 },
    ]);
    const pack = (bytes: number) =>
      query(
        `INSERT INTO pack (id, queue_id, count, expires_at, payload) VALUES (${bytes}, 1, 1, 1, REPEAT('x', ${bytes}))`,
      );
    await pack(300_000);
  });

  test('give the pack table and its overflow the same columns, which EXCHANGE PARTITION needs', async () => {
    await migrateDatabase(database.url);
    const columns = async (table: string): Promise<unknown> =>
      query(
        `SELECT column_name AS c, column_type AS t, is_nullable AS n, ordinal_position AS p FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = '${table}' ORDER BY ordinal_position`,
      );
    expect(await columns('pack_overflow')).toEqual(await columns('pack'));
  });
});

describe('the entities', () => {
  let dataSource: DataSource;

  beforeEach(async () => {
    await migrateDatabase(database.url);
    dataSource = await openDataSource({ url: database.url, poolSize: 1 });
    return () => dataSource.destroy();
  });

  test('describe their tables column by column', async () => {
    const described = dataSource.entityMetadatas.flatMap((entity) =>
      entity.columns.map((column) => ({
        table: entity.tableName,
        column: column.databaseName,
        type: dataSource.driver.normalizeType(column),
        length: column.length,
        unsigned: column.unsigned,
        nullable: column.isNullable,
        key: column.isPrimary,
        generated: column.isGenerated,
      })),
    );
    const tables = dataSource.entityMetadatas.map(({ tableName }) => `'${tableName}'`).join(', ');
    const rows = await query(
      `SELECT table_name AS t, column_name AS c, data_type AS type, column_type AS full, is_nullable AS nullable, column_key AS k, extra AS extra
       FROM information_schema.columns
       WHERE table_schema = DATABASE() AND table_name IN (${tables})`,
    );
    const found = rows.map(({ t, c, type, full, nullable, k, extra }) => ({
      table: t,
      column: c,
      type,
      // The width of a number has no meaning. MariaDB and boolean columns show one.
      length: /^(?:binary|varbinary|varchar)\((\d+)\)/.exec(full!)?.[1] ?? '',
      unsigned: full!.includes('unsigned'),
      nullable: nullable === 'YES',
      key: k === 'PRI',
      generated: extra!.includes('auto_increment'),
    }));
    const sorted = (list: { table: string | undefined; column: string | undefined }[]): unknown[] =>
      list.toSorted((one, other) => `${one.table}.${one.column}`.localeCompare(`${other.table}.${other.column}`));
    expect(sorted(found)).toEqual(sorted(described));
  });
});
