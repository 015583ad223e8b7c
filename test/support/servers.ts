import { randomBytes } from 'node:crypto';
import { createConnection } from 'mysql2/promise';
import { fileURLToPath } from 'node:url';
import { inject } from 'vitest';
import {
  EmbeddedServer,
  type EmbeddedServerOptions,
  findServer,
  type ServerKind,
  type ServerProgram,
} from '@rowmq/mysql-server';
import { copyFreshData } from './fresh-data.js';

/** The database server that the tests of this project share. */
export interface TestServer {
  readonly kind: ServerKind;
  /** Such as `9.7.4`. */
  readonly version: string;
  /** The URL of a user with all privileges. Its database is `rowmq`. */
  readonly url: string;
}

/** A database of one test, or of one test file. */
export interface TestDatabase {
  readonly name: string;
  readonly url: string;
  /** Removes the database. Not called after a failure, so that its data can be read. */
  drop(): Promise<void>;
}

declare module 'vitest' {
  export interface ProvidedContext {
    server: TestServer;
    /** The kinds of server that this run tests. The first runs the tests of one kind only. */
    kinds: readonly ServerKind[];
  }
}

/** The server of this test file. Each file runs once per kind of server. */
export function testServer(): TestServer {
  return inject('server');
}

/**
 * Whether this kind of server is the one that runs the tests to which the kind does not matter.
 * run-once.ts lists whole files of such tests.
 */
export function isFirstKind(): boolean {
  return inject('kinds')[0] === testServer().kind;
}

/**
 * The kind for servers of a test's own to which the kind does not matter: MariaDB, if there is one.
 * It takes a quarter of MySQL's CPU to initialise and to start.
 */
export function cheapestKind(): ServerKind {
  return inject('kinds').at(-1) ?? testServer().kind;
}

/**
 * This kind's share of cases that do not depend on the kind. Each case has a kind, and the kinds
 * take turns.
 */
export function shareOf<T>(cases: readonly T[]): T[] {
  const kinds = inject('kinds');
  return cases.filter((_, index) => kinds[index % kinds.length] === testServer().kind);
}

/**
 * The program of a kind of server, for tests that run one of their own. It is unpacked before any
 * test begins.
 */
export async function serverProgram(kind: ServerKind = testServer().kind): Promise<ServerProgram> {
  const serversDir = process.env['ROWMQ_SERVERS_DIR'];
  return findServer({
    kinds: [kind],
    dataDir: fileURLToPath(new URL('../../.rowmq-test', import.meta.url)),
    install: false,
    ...(serversDir ? { serversDir } : {}),
  });
}

/** Starts a server for one file of tests, of this project's kind, on initialised data. */
export async function startServer(options: Omit<EmbeddedServerOptions, 'program'>): Promise<EmbeddedServer> {
  const program = await serverProgram();
  await copyFreshData(program, options.dataDir);
  return EmbeddedServer.start({ bufferPoolMegabytes: 128, ...options, program });
}

/** Creates an empty database with a fresh name on the server of this project. */
export async function createDatabase(): Promise<TestDatabase> {
  const name = `rowmq_t_${randomBytes(6).toString('hex')}`;
  const url = new URL(testServer().url);
  url.pathname = `/${name}`;
  await execute(`CREATE DATABASE ${name} CHARACTER SET utf8mb4`);
  return { name, url: url.href, drop: () => execute(`DROP DATABASE IF EXISTS ${name}`) };
}

async function execute(sql: string): Promise<void> {
  const connection = await createConnection({ uri: testServer().url });
  try {
    await connection.query(sql);
  } finally {
    await connection.end();
  }
}
