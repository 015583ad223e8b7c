import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RowmqError } from '@rowmq/contract';
import type { EmbeddedServer } from '@rowmq/mysql-server';
import {
  Database,
  type EnqueuedMessage,
  MessageRepository,
  migrateDatabase,
  NoPrimaryError,
  openDataSource,
  QueueRepository,
  type DatabaseSettings,
} from '@rowmq/store';
import { type Connection, createConnection, type RowDataPacket } from 'mysql2/promise';
import type { DataSource } from 'typeorm';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Balancer, startBalancer } from '../support/balancer.js';
import { rowmq } from '../support/cli.js';
import { openGateway } from '../support/gateway.js';
import { freePort } from '../support/processes.js';
import { startServer } from '../support/servers.js';
import { message } from '../support/store.js';
import { eventually } from '../support/wait.js';
import { claimFrom } from '../support/claim-from.js';

const PASSWORD = 'rowmq-of-two-servers';
/** Longer than an attempt, a search for a primary, and the pause after it. */
const MOMENT_MS = 20_000;

interface Host {
  server: EmbeddedServer;
  admin: Connection;
  /** `127.0.0.1:port` */
  name: string;
}

let folder: string;
let hosts: [Host, Host];
let opened: DataSource[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-hosts-'));
  const start = async (name: string): Promise<Host> => {
    const server = await startServer({ dataDir: join(folder, name), password: PASSWORD });
    const admin = await createConnection({ uri: server.url });
    await admin.query(`CREATE USER app@'127.0.0.1' IDENTIFIED BY '${PASSWORD}'`);
    await admin.query(`GRANT ALL ON rowmq.* TO app@'127.0.0.1'`);
    await admin.query('CREATE TABLE note (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(100))');
    return { server, admin, name: `127.0.0.1:${server.port}` };
  };
  hosts = await Promise.all([start('first'), start('second')]);
});

afterAll(async () => {
  // Nobody reads their data again, so they need not stop in order.
  await Promise.all(
    (hosts ?? []).map(async ({ server, admin }) => {
      admin.destroy();
      await server.kill();
    }),
  );
  await rm(folder, { recursive: true, force: true });
});

beforeEach(async () => {
  for (const { admin } of hosts) await admin.query('DELETE FROM note');
  await makePrimary(1);
});

async function closeAll(): Promise<void> {
  for (const dataSource of opened) await dataSource.destroy();
  opened = [];
}

afterEach(closeAll);

/** Acts like a failover: first no host is writable, then the other one is. With -1, none is. */
async function makePrimary(index: number): Promise<void> {
  for (const { admin } of hosts) await admin.query('SET GLOBAL read_only = ON');
  if (index >= 0) await hosts[index]?.admin.query('SET GLOBAL read_only = OFF');
}

/** The URL of a user whose writes read-only servers refuse. */
const url = (...names: string[]): string => `mysql://app:${PASSWORD}@${names.join(',')}/rowmq`;
const both = (): string => url(hosts[0].name, hosts[1].name);

async function open(
  address: string,
  statementDeadlineMs?: number,
  { poolSize = 4, log }: Pick<DatabaseSettings, 'poolSize' | 'log'> = {},
): Promise<Database> {
  const dataSource = await openDataSource({ url: address, poolSize, ...(log && { log }) });
  opened.push(dataSource);
  return new Database(dataSource, statementDeadlineMs);
}

async function note(database: Database, text: string): Promise<void> {
  await database.write('INSERT INTO note (text) VALUES (?)', [text]);
}

async function notes(index: 0 | 1): Promise<string[]> {
  const [rows] = await hosts[index].admin.query<RowDataPacket[]>('SELECT text FROM note ORDER BY id');
  return rows.map(({ text }) => text as string);
}

async function connections(index: 0 | 1): Promise<number> {
  const [rows] = await hosts[index].admin.query<RowDataPacket[]>(
    `SELECT 1 FROM information_schema.processlist WHERE user = 'app'`,
  );
  return rows.length;
}

describe('a database of several hosts', () => {
  test('is used at its writable host, at any position in the list', async () => {
    await note(await open(both()), 'to the second');
    await makePrimary(0);
    await note(await open(both()), 'to the first');
    expect([await notes(0), await notes(1)]).toEqual([['to the first'], ['to the second']]);
  });

  test('is used even if one host of the list is down', async () => {
    const nobody = `127.0.0.1:${await freePort()}`;
    await note(await open(url(nobody, hosts[0].name, hosts[1].name)), 'all the same');
    expect(await notes(1)).toEqual(['all the same']);
  });

  test('moves to a new primary with the next write and keeps no connection to the old one', async () => {
    const database = await open(both());
    await Promise.all([1, 2, 3, 4].map((number) => note(database, `before ${number}`)));
    // The server may not have noticed yet that the connections of the test before were closed.
    await eventually('it has four connections', async () => (await connections(1)) === 4);
    await makePrimary(0);
    await note(database, 'after');
    expect(await notes(0)).toEqual(['after']);
    expect(await notes(1)).toHaveLength(4);
    await eventually('the connections are closed', async () => (await connections(1)) === 0);
  });

  test('logs one line each for the trouble, the new primary and the end of the trouble', async () => {
    const lines: string[] = [];
    const log = { log: (line: string) => lines.push(line), warn: (line: string) => lines.push(`warn: ${line}`) };
    const database = await open(both(), undefined, { log });
    await Promise.all([1, 2, 3, 4].map((number) => note(database, `before ${number}`)));
    expect(lines).toEqual([]);
    await makePrimary(0);
    await Promise.all(Array.from({ length: 20 }, async (_, number) => note(database, `after ${number}`)));
    await eventually('it is over', () => lines.length >= 3);
    expect(lines).toEqual([
      expect.stringMatching(/^warn: Trouble with the database: .*read.only.* It is tried again\.$/i),
      `The primary is now ${hosts[0].name}.`,
      expect.stringMatching(/^The database answers again: the trouble lasted \d+\.\d s, in which \d+ tries failed\.$/),
    ]);
    expect(database.health.isUp).toBe(true);
    expect([...database.health.failures.values()].some((count) => count > 0)).toBe(true);
  });

  test('moves to a new primary during a transaction, which is executed once, as a whole', async () => {
    const database = await open(both());
    let tries = 0;
    await database.transaction(async (tx) => {
      tries += 1;
      await tx.read('SELECT 1');
      if (tries === 1) await makePrimary(0);
      await tx.write('INSERT INTO note (text) VALUES (?)', ['one']);
      await tx.write('INSERT INTO note (text) VALUES (?)', ['two']);
    });
    expect([await notes(0), await notes(1)]).toEqual([['one', 'two'], []]);
    expect(tries).toBeGreaterThan(1);
  });

  test('is unavailable, also for reads, while no host is writable, and recovers when one is', async () => {
    const database = await open(both());
    await note(database, 'before');
    await makePrimary(-1);
    await expect(note(database, 'refused')).rejects.toMatchObject({ code: 'database-unavailable' });
    await expect(database.read('SELECT 1')).rejects.toMatchObject({ code: 'database-unavailable' });
    await makePrimary(0);
    await note(database, 'after');
    expect([await notes(0), await notes(1)]).toEqual([['after'], ['before']]);
  });

  test('is not opened while no host is writable, and the error names each host and its reason', async () => {
    await makePrimary(-1);
    const error = await openDataSource({ url: both() }).catch((thrown: unknown) => thrown);
    expect((error as Error).cause).toBeInstanceOf(NoPrimaryError);
    expect((error as Error).message).toContain(
      `Cannot use the database at ${hosts[0].name},${hosts[1].name}/rowmq: no host takes writes: ${hosts[0].name} (the server is read-only), ${hosts[1].name} (the server is read-only). `,
    );
  });

  test('is not opened when two hosts are writable', async () => {
    for (const { admin } of hosts) await admin.query('SET GLOBAL read_only = OFF');
    await expect(openDataSource({ url: both() })).rejects.toThrow('both take writes');
  });

  test('moves away from a host that cannot be reached any more', async () => {
    const gateway = await openGateway(hosts[1].server.url);
    const database = await open(url(hosts[0].name, new URL(gateway.url).host));
    await note(database, 'before');
    await gateway.shut();
    await makePrimary(0);
    await note(database, 'after');
    expect([await notes(0), await notes(1)]).toEqual([['after'], ['before']]);
  });

  test('moves away from a host that hangs, before the deadline of the statement that waits for it', async () => {
    const database = await open(both(), 60_000);
    await note(database, 'before');
    await makePrimary(-1);
    process.kill(hosts[1].server.pid, 'SIGSTOP');
    try {
      await hosts[0].admin.query('SET GLOBAL read_only = OFF');
      const started = performance.now();
      await note(database, 'after');
      expect(performance.now() - started).toBeLessThan(MOMENT_MS);
    } finally {
      process.kill(hosts[1].server.pid, 'SIGCONT');
    }
    expect(await notes(0)).toEqual(['after']);
    expect(await notes(1)).toEqual(['before']);
  });

  test('does not move to a second writable host, and stores nothing on either until one is read-only', async () => {
    const database = await open(both());
    await note(database, 'before');
    for (const { admin } of hosts) await admin.query('SET GLOBAL read_only = OFF');
    // A statement this slow makes the pool suspect its host.
    await database.read('SELECT SLEEP(3.2)');
    await eventually('it is refused', () =>
      note(database, 'meanwhile').then(
        () => false,
        (error: Error) => error.message.includes('more than one host takes writes'),
      ),
    );
    await hosts[0].admin.query('SET GLOBAL read_only = ON');
    await note(database, 'after');
    expect(await notes(0)).toEqual([]);
    expect((await notes(1)).filter((text) => text !== 'meanwhile')).toEqual(['before', 'after']);
  });

  test('gets its schema at the writable host', async () => {
    await makePrimary(0);
    await migrateDatabase(both());
    const [tables] = await hosts[0].admin.query<RowDataPacket[]>(`SHOW TABLES LIKE 'rowmq_migration'`);
    const [elsewhere] = await hosts[1].admin.query<RowDataPacket[]>(`SHOW TABLES LIKE 'rowmq_migration'`);
    expect([tables.length, elsewhere.length]).toEqual([1, 0]);
  });

  test('moves to a new primary for a broker with empty queues, which writes nothing', async () => {
    for (const index of [0, 1] as const) {
      await makePrimary(index);
      await migrateDatabase(both());
    }
    // One connection only, because the pool would probe a new one.
    const database = await open(both(), undefined, { poolSize: 1 });
    const { queue } = await new QueueRepository(database).put('idle', {});
    const broker = new MessageRepository(database);
    const dequeue = async () => (await claimFrom(broker, queue, [{ maxMessages: 1, leaseSeconds: 60 }])).leased.flat();
    expect(await dequeue()).toEqual([]);
    await makePrimary(0);
    const elsewhere = await open(url(hosts[0].name));
    const { queue: same } = await new QueueRepository(elsewhere).put('idle', {});
    expect(same.id).toBe(queue.id);
    const [ids] = await new MessageRepository(elsewhere).enqueue([{ queueName: 'idle', messages: [message()] }]);
    expect(ids).toEqual([{ id: expect.any(Buffer) as Buffer, duplicate: false }]);
    const [delivery] = await eventually('its consumers get what others have enqueued at the new primary', async () => {
      const leased = await dequeue();
      return leased.length > 0 && leased;
    });
    expect(delivery?.body.toString()).toBe('body');
    expect(await connections(1)).toBe(0);
  });
});

describe('a database of one host', () => {
  test('that becomes read-only soon refuses reads on open connections, because its name may now lead to another host', async () => {
    const database = await open(url(hosts[1].name));
    await database.read('SELECT 1');
    await makePrimary(-1);
    await eventually('reads are refused', () =>
      database.read('SELECT 1').then(
        () => false,
        (error: RowmqError) => error.code === 'database-unavailable',
      ),
    );
    await makePrimary(1);
    expect(await database.read('SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  test('that is read-only is unavailable, also for reads, because the next connection may reach the primary', async () => {
    const database = await open(url(hosts[0].name));
    await expect(database.read('SELECT 1')).rejects.toMatchObject({ code: 'database-unavailable' });
    await makePrimary(0);
    await note(database, 'after');
    expect(await notes(0)).toEqual(['after']);
  });
});

describe('a name that leads to several servers', () => {
  let balancer: Balancer;
  const name = (): string => url(new URL(balancer.url).host);
  const lines: string[] = [];
  const log = { log: (line: string) => void lines.push(line), warn: (line: string) => void lines.push(line) };

  beforeEach(async () => {
    lines.length = 0;
    balancer = await startBalancer();
    for (const { admin } of hosts) await admin.query('SET GLOBAL read_only = OFF');
  });
  afterEach(async () => {
    // A pool that says goodbye on a connection that the balancer has cut fails.
    await closeAll();
    await balancer.close();
  });

  test('is refused at boot if two of them take writes', async () => {
    for (const { server } of hosts) balancer.add(server.url);
    await expect(openDataSource({ url: name() })).rejects.toThrow(
      /leads to several servers that take writes \([^,]+, [^,]+\), and messages would scatter/,
    );
    await expect(migrateDatabase(name())).rejects.toThrow('leads to several servers that take writes');
    await makePrimary(0);
    await note(await open(name()), 'to the writable one');
    expect([await notes(0), await notes(1)]).toEqual([['to the writable one'], []]);
  });

  test('is refused by health, log and metric while a second one takes writes, and nothing confirmed is lost', async () => {
    for (const index of [0, 1] as const) await migrateDatabase(url(hosts[index].name));
    balancer.add(hosts[1].server.url);
    const database = await open(name(), undefined, { poolSize: 8, log });
    const queues = new QueueRepository(database);
    const queue = (await queues.put(`two-${process.pid}`, {})).queue;
    await new QueueRepository(await open(url(hosts[0].name))).put(queue.name, {});
    await hosts[0].admin.query('DELETE FROM pack');
    const broker = new MessageRepository(database);
    const owed = new Set<string>();
    let refused = 0;
    const enqueue = async (): Promise<void> => {
      try {
        const [ids] = await broker.enqueue([{ queueName: queue.name, messages: [message(), message()] }]);
        for (const { id } of ids as EnqueuedMessage[]) owed.add(id.toString('hex'));
      } catch (error) {
        expect((error as RowmqError).code).toBe('database-unavailable');
        refused += 1;
      }
    };
    const round = async (): Promise<void> => void (await Promise.all(Array.from({ length: 8 }, enqueue)));
    await enqueue();
    balancer.add(hosts[0].server.url);
    await eventually('requests are refused', async () => {
      await round();
      return refused > 0;
    });
    await expect(database.ping(2000)).rejects.toThrow(/leads to several servers that take writes|no answer within/);
    expect(lines.join('\n')).toContain('leads to several servers that take writes');
    expect(database.health.failures.get('SEVERAL_SERVERS')).toBeGreaterThan(0);
    expect(database.health.hasSeveralServers).toBe(true);
    balancer.remove(hosts[0].server.url);
    await eventually('the database answers again', () =>
      database.ping(2000).then(
        () => true,
        () => false,
      ),
    );
    expect(database.health.hasSeveralServers).toBe(false);
    const before = owed.size;
    await round();
    expect(owed.size).toBe(before + 16);
    // The ledger: every confirmed message is handed out, and nothing is on the other server.
    await eventually('all are handed out', async () => {
      const { leased } = await claimFrom(broker, queue, [{ maxMessages: 100, leaseSeconds: 60 }]);
      for (const { messageId } of leased.flat()) owed.delete(messageId.toString('hex'));
      return owed.size === 0;
    });
    const [stray] = await hosts[0].admin.query<RowDataPacket[]>('SELECT 1 FROM pack');
    expect(stray).toEqual([]);
  });

  test('moves to another server as in a failover: after the first has gone, with all connections', async () => {
    balancer.add(hosts[1].server.url);
    const database = await open(name(), undefined, { log });
    await note(database, 'before');
    balancer.remove(hosts[1].server.url);
    balancer.add(hosts[0].server.url);
    await hosts[1].admin.query('SET GLOBAL read_only = ON');
    await eventually('the new server is used', () =>
      note(database, 'after').then(
        () => true,
        () => false,
      ),
    );
    expect([await notes(0), await notes(1)]).toEqual([['after'], ['before']]);
    expect(await connections(1)).toBe(0);
    expect(lines.join('\n')).toMatch(/The primary is now server \S+ at 127\.0\.0\.1:\d+\./);
  });
});

describe('rowmq doctor', { timeout: 180_000 }, () => {
  /** The findings about the primary, and the exit code. */
  async function examine(address: string): Promise<{ code: number | null; checks: string[]; text: string }> {
    const env = { ROWMQ_DATABASE_URL: address };
    const { code, stdout } = await rowmq(['doctor', '--database', '--json'], { env });
    const findings = stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { check: string; state: string; text: string });
    const text = findings.find(({ check }) => check === 'one primary')?.text ?? '';
    return { code, checks: findings.map(({ check, state }) => `${check}: ${state}`), text };
  }

  test('finds two servers that take writes behind one name, and says what to change', async () => {
    const balancer = await startBalancer();
    try {
      for (const { server, admin } of hosts) {
        balancer.add(server.url);
        await admin.query('SET GLOBAL read_only = OFF');
      }
      const name = url(new URL(balancer.url).host);
      const found = await examine(name);
      expect(found).toMatchObject({ code: 1, checks: ['one primary: fault'] });
      expect(found.text).toMatch(/leads to several servers that take writes \([^,]+, [^,]+\)/);
      expect(found.text).toContain('let it lead to the primary alone');
      expect(found.text).not.toContain(PASSWORD);

      // A replica behind the same name is no fault.
      await makePrimary(0);
      expect((await examine(name)).checks).toContain('one primary: ok');
    } finally {
      await balancer.close();
    }
  });

  test('finds two hosts of a list that take writes, and none that does', async () => {
    for (const { admin } of hosts) await admin.query('SET GLOBAL read_only = OFF');
    const two = await examine(both());
    expect(two).toMatchObject({ code: 1, checks: ['one primary: fault'] });
    for (const { name } of hosts) expect(two.text).toContain(name);
    await makePrimary(-1);
    expect(await examine(both())).toMatchObject({ code: 1, checks: ['one primary: fault'] });
    await makePrimary(1);
    expect((await examine(both())).checks).toContain('one primary: ok');
  });
});
