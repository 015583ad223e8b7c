import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Connection, createConnection } from 'mysql2/promise';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  EmbeddedServer,
  EmbeddedServerError,
  FolderLockedError,
  type ServerProgram,
  findProcessesByArgument,
} from '@rowmq/mysql-server';
import { DataFolder } from '../../tools/mysql-server/src/data-folder.js';
import { serverArguments } from '../../tools/mysql-server/src/settings.js';
import { copyFreshData } from '../support/fresh-data.js';
import { createDatabase, serverProgram, testServer } from '../support/servers.js';

let program: ServerProgram;
let dataDir: string;
let folder: string;
/**
 * The server that runs on each data folder. A test goes on with the server of the test before it,
 * because a start takes 3 s of CPU.
 */
const running = new Map<string, EmbeddedServer>();

/** The data folder of most tests. */
let shared: string;
/** A folder without data, whose path is too long for a socket. */
let long: string;
const folders: string[] = [];

beforeAll(async () => {
  program = await serverProgram(testServer().kind);
  shared = await newDataDir();
  await copyFreshData(await serverProgram(), shared);
  long = join(await newDataDir(), 'a-long-name-'.repeat(10));
});

beforeEach(() => use(shared));

afterAll(async () => {
  await Promise.all([...running.values()].map((server) => server.kill()));
  for (const path of folders) await rm(path, { recursive: true, force: true });
});

function use(path: string): void {
  dataDir = path;
  folder = join(dataDir, program.kind);
}

async function newDataDir(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'rowmq-embedded-'));
  folders.push(path);
  return path;
}

/** The space that the files of a folder have on disk. */
async function megabytesOf(path: string): Promise<number> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const sizes = await Promise.all(files.map(async (file) => (await stat(file)).blocks * 512));
  return sizes.reduce((sum, size) => sum + size, 0) / 1_000_000;
}

async function start(options: { port?: number } = {}): Promise<EmbeddedServer> {
  const server = await EmbeddedServer.start({ program, dataDir, bufferPoolMegabytes: 128, ...options });
  running.set(dataDir, server);
  return server;
}

/** The server that runs on the folder. Starts one if there is none. */
async function runningServer(): Promise<EmbeddedServer> {
  return running.get(dataDir) ?? start();
}

async function stop(server: EmbeddedServer): Promise<void> {
  await server.stop();
  running.delete(dataDir);
}

async function query(server: EmbeddedServer, sql: string): Promise<Record<string, unknown>[]> {
  const connection: Connection = await createConnection({ uri: server.url });
  try {
    const [rows] = await connection.query(sql);
    return Array.isArray(rows) ? JSON.parse(JSON.stringify(rows)) : [];
  } finally {
    await connection.end();
  }
}

async function serversOnFolder(): Promise<number[]> {
  return (await findProcessesByArgument(`--datadir=${join(folder, 'data')}`)).map(({ pid }) => pid);
}

/**
 * Leaves the state after a SIGKILL of the process that started a server: the server still runs, and
 * the holder of its lock is gone.
 */
async function leaveServerBehind(): Promise<number> {
  await stop(await runningServer());
  const files = new DataFolder(dataDir, program.kind);
  const port = await files.choosePort();
  const commandLine = serverArguments({
    kind: program.kind,
    data: files.data,
    port,
    socket: await files.socket(),
    pidFile: files.pidFile,
    initFile: files.initFile,
    bufferPoolMegabytes: 128,
  });
  const child = spawn(program.program, commandLine, { stdio: 'ignore', detached: true });
  // Wait until it answers: MariaDB writes its pid file before it heeds SIGTERM. A server that gets
  // SIGTERM in between ends only at the deadline, by SIGKILL.
  await expect.poll(() => isListening(port), { timeout: 60_000 }).toBe(true);
  return child.pid!;
}

async function isListening(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  return new Promise((done) => {
    socket.once('data', () => done(true)).once('error', () => done(false));
  }).finally(() => socket.destroy()) as Promise<boolean>;
}

/** Occupies a port until the returned function is called. */
async function occupy(port: number): Promise<() => Promise<void>> {
  const server = createServer();
  await new Promise<void>((done, fail) => server.once('error', fail).listen(port, '127.0.0.1', done));
  return () => new Promise((done) => server.close(() => done()));
}

describe('the embedded server', () => {
  test('is durable, reachable only from this machine, and keeps its data over a restart and a crash', async () => {
    const first = await runningServer();
    // MariaDB before 11.1 knows this variable by its old name only.
    const isolation = program.kind === 'mysql' ? '@@transaction_isolation' : '@@tx_isolation';
    const settings = await query(
      first,
      `SELECT @@innodb_flush_log_at_trx_commit AS redo, @@sync_binlog AS binlog, @@log_bin AS logs, @@binlog_format AS format,
              @@bind_address AS address, ${isolation} AS isolation, @@max_allowed_packet AS packet`,
    );
    expect(settings).toEqual([
      {
        redo: 1,
        binlog: 1,
        logs: 1,
        format: 'ROW',
        address: '127.0.0.1',
        isolation: 'READ-COMMITTED',
        packet: 64 * 1024 * 1024,
      },
    ]);
    await query(first, 'CREATE TABLE kept (id INT PRIMARY KEY)');
    await query(first, 'INSERT INTO kept VALUES (1)');
    await stop(first);
    expect(await serversOnFolder()).toEqual([]);

    const second = await start();
    expect(second.url).toBe(first.url);
    await query(second, 'INSERT INTO kept VALUES (2)');
    await second.kill();

    const third = await start({ port: second.port });
    expect(await query(third, 'SELECT id FROM kept ORDER BY id')).toEqual([{ id: 1 }, { id: 2 }]);
  });

  test('admits nobody over TCP without the password, not even root', async () => {
    const server = await runningServer();
    for (const user of ['root', 'rowmq', '']) {
      await expect(createConnection({ host: '127.0.0.1', port: server.port, user })).rejects.toThrow(
        /denied|not allowed/i,
      );
    }
    const users = await query(
      server,
      "SELECT user AS name, host AS host FROM mysql.user WHERE user NOT LIKE '%.%' ORDER BY user",
    );
    expect(users).toEqual([
      { name: 'root', host: 'localhost' },
      { name: 'rowmq', host: '127.0.0.1' },
    ]);
    expect((await stat(join(folder, 'password'))).mode & 0o777).toBe(0o600);
    expect((await stat(folder)).mode & 0o777).toBe(0o700);
  });

  test('refuses a second start on a folder in use and names its holder', async () => {
    await runningServer();
    await expect(start()).rejects.toThrow(FolderLockedError);
    await expect(start()).rejects.toThrow(`process ${process.pid}`);
    expect(await serversOnFolder()).toHaveLength(1);
  });

  test('replaces a server that a killed process left behind', async () => {
    const leftBehind = await leaveServerBehind();
    expect(await serversOnFolder()).toEqual([leftBehind]);
    const server = await start();
    expect(await serversOnFolder()).toEqual([server.pid]);
    expect(server.pid).not.toBe(leftBehind);
    // Two starts and two stops, each with a deadline of its own. The machine may be busy.
  }, 180_000);

  test('reports the server’s own error when its port is in use, and chooses another port unless one is given', async () => {
    const first = await runningServer();
    await stop(first);
    const squatter = await occupy(first.port);
    try {
      const failure = await start({ port: first.port }).catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(EmbeddedServerError);
      expect(String(failure)).toMatch(/error\.log:\n[^]*bind on TCP\/IP port/i);
      // The failed start released the folder.
      const second = await start();
      expect(second.port).not.toBe(first.port);
      expect(await query(second, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    } finally {
      await squatter();
    }
  });

  test('initialises again when the first initialisation was interrupted', async () => {
    use(long);
    const unfinished = join(folder, 'data.unfinished');
    await mkdir(unfinished, { recursive: true });
    await writeFile(join(unfinished, 'ibdata1'), 'half a page');
    const server = await start();
    expect(await query(server, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    expect(await readdir(folder)).not.toContain('data.unfinished');
  });

  test('takes less than 450 MB of disk at first, on a machine with much memory too', async () => {
    const dir = await newDataDir();
    await copyFreshData(program, dir);
    const server = await EmbeddedServer.start({ program, dataDir: dir, bufferPoolMegabytes: 4096 });
    try {
      expect(await megabytesOf(dir)).toBeLessThan(450);
    } finally {
      await server.kill();
    }
  });

  test('runs from a folder whose path is too long for a socket', async () => {
    use(long);
    const server = await runningServer();
    expect(await query(server, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    await stop(server);
    const [socket] = await query(await start(), 'SELECT @@socket AS path');
    expect(String(socket?.['path']).length).toBeLessThan(100);
  });
});

test('a test can create a fresh database and drop it', async () => {
  const database = await createDatabase();
  const connection = await createConnection({ uri: database.url });
  const [rows] = await connection.query('SELECT DATABASE() AS name');
  expect(rows).toEqual([{ name: database.name }]);
  await connection.end();
  await database.drop();
  await expect(createConnection({ uri: database.url })).rejects.toThrow(/unknown database/i);
});
