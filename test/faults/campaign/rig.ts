import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { RowmqHttpClient } from '@rowmq/client/core';
import type { ReaperAnswer } from '@rowmq/contract';
import { EmbeddedServer, type ServerKind } from '@rowmq/mysql-server';
import { migrateDatabase } from '@rowmq/store';
import { type Connection, createConnection, type ResultSetHeader, type RowDataPacket } from 'mysql2/promise';
import { DatabaseProxy } from '../../support/database-proxy.js';
import { copyFreshData } from '../../support/fresh-data.js';
import { freePort, type SpawnedApp, spawnApp } from '../../support/processes.js';
import { serverProgram } from '../../support/servers.js';
import { openStore, type TestStore } from '../../support/store.js';
import { eventually } from '../../support/wait.js';

/** All that docs/operations.md says that RowMQ's user needs. */
const PRIVILEGES = 'SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, LOCK TABLES';
const DATABASE = 'rowmq_faults';
const PASSWORD = 'of-the-rig';
/** Each process is a user of its own, so that it can be told what it is doing. */
const USERS = { brokers: ['broker1', 'broker2'], reapers: ['reaper1', 'reaper2'] } as const;
const OF_ROWMQ = `(USER LIKE 'broker%' OR USER LIKE 'reaper%')`;
/** Connections of each broker; few, so that a fault can exhaust them. */
export const POOL_SIZE = 4;
/** Longer than all tests together, so that no row of the load's messages is dropped. */
export const RETENTION_SECONDS = 6 * 3600;
/** Connections of the database, outside the fault that exhausts them. */
export const MAX_CONNECTIONS = 500;

/** A process that can be killed and started again with the same settings. */
export class Restartable {
  /** The folder of the compiled processes. Default: what was built. */
  root: string | undefined;
  private running: SpawnedApp | undefined;
  /** The output of the instances that have ended. */
  private written = '';

  constructor(
    /** In the database it is a user of this name. */
    readonly user: string,
    private readonly app: 'broker' | 'reaper',
    private readonly settings: Record<string, string>,
  ) {}

  /** False also for one that has ended by itself. */
  isAlive(): boolean {
    return this.running?.isAlive() === true;
  }

  isReady(): boolean {
    return this.running?.isReady() === true;
  }

  /**
   * Starts it, unless it is alive, and waits until it is ready. @param env settings of this start
   * alone.
   */
  async start(env: Record<string, string> = {}): Promise<void> {
    if (!this.isAlive()) this.spawn(env);
    await this.running?.ready;
  }

  /** Starts it without waiting for it. */
  spawn(env: Record<string, string> = {}): void {
    this.written = this.output();
    this.running = spawnApp(this.app, { ...this.settings, ...env }, { root: this.root });
  }

  /** SIGKILL. Throws if it has ended by itself, or was never started: then nothing is killed. */
  async kill(): Promise<void> {
    await this.end((process) => process.kill());
  }

  /** Stops it in order. Throws as {@link kill} does. */
  async stop(): Promise<void> {
    await this.end((process) => process.stop());
  }

  /** Ends it, whether or not it is alive. */
  async remove(): Promise<void> {
    await this.running?.kill();
  }

  output(): string {
    return this.written + (this.running?.output() ?? '');
  }

  private async end(how: (process: SpawnedApp) => Promise<void>): Promise<void> {
    const process = this.running;
    if (process?.isAlive() !== true) throw new Error(`${this.user} has ended by itself:\n${this.output()}`);
    await how(process);
  }
}

export interface RigOptions {
  kind: ServerKind;
  /** The server's data folder. Default: a folder of its own, removed at the end. */
  folder?: string;
  bufferPoolMegabytes?: number;
  /** The number of brokers, and of reapers. Default: two. */
  processes?: 1 | 2;
}

/**
 * A whole RowMQ of its own that may be broken: a database server, a network in front of it, brokers
 * and reapers, each a real process.
 *
 * RowMQ's users have no more rights than they need.
 */
export class FaultRig {
  readonly brokers: Restartable[] = [];
  readonly reapers: Restartable[] = [];
  /** One for each broker. */
  readonly clients: RowmqHttpClient[] = [];
  /** Turns from a broker that fails to the other, but sends each call once. */
  client!: RowmqHttpClient;
  network!: DatabaseProxy;
  private server: EmbeddedServer | undefined;
  private serverIsUp = false;
  /** A run that is interrupted ends without its clean-up. */
  private readonly killAtExit = (): void => void this.server?.kill();
  private adminConnection: Connection | undefined;

  private constructor(
    readonly kind: ServerKind,
    private readonly folder: string,
    private readonly bufferPoolMegabytes: number,
  ) {}

  /**
   * Starts the server and the network. {@link repair} or {@link useBrokers} starts the other
   * processes.
   */
  static async start({ kind, folder, bufferPoolMegabytes = 256, processes = 2 }: RigOptions): Promise<FaultRig> {
    const own = folder ?? (await mkdtemp(join(tmpdir(), 'rowmq-faults-')));
    const rig = new FaultRig(kind, own, bufferPoolMegabytes);
    process.once('exit', rig.killAtExit);
    try {
      await rig.begin(processes);
      return rig;
    } catch (error) {
      await rig.stop();
      throw error;
    }
  }

  private async begin(processes: number): Promise<void> {
    await copyFreshData(await serverProgram(this.kind), this.folder);
    await this.startServer();
    await this.admin(`CREATE DATABASE ${DATABASE} CHARACTER SET utf8mb4`);
    await this.admin(`USE ${DATABASE}`);
    for (const user of [...USERS.brokers, ...USERS.reapers]) {
      await this.admin(`CREATE USER ${user}@'%' IDENTIFIED BY '${PASSWORD}'`);
      await this.admin(`GRANT ${PRIVILEGES} ON ${DATABASE}.* TO ${user}@'%'`);
    }
    this.network = await DatabaseProxy.start(this.serverUrl);
    await migrateDatabase(this.urlOf(USERS.brokers[0]));
    for (const user of USERS.brokers.slice(0, processes)) {
      const port = await freePort();
      this.clients.push(new RowmqHttpClient({ url: `http://127.0.0.1:${port}`, retries: 0 }));
      const settings = { ROWMQ_PORT: String(port), ROWMQ_DATABASE_POOL_SIZE: String(POOL_SIZE) };
      this.brokers.push(new Restartable(user, 'broker', { ROWMQ_DATABASE_URL: this.urlOf(user), ...settings }));
    }
    for (const user of USERS.reapers.slice(0, processes)) {
      const settings = { ROWMQ_REAPER_INTERVAL_SECONDS: '1', ROWMQ_RETENTION_SECONDS: String(RETENTION_SECONDS) };
      this.reapers.push(new Restartable(user, 'reaper', { ROWMQ_DATABASE_URL: this.urlOf(user), ...settings }));
    }
    this.client = new RowmqHttpClient({ url: this.clients.map((client) => client.url), retries: 0 });
  }

  /** The database's URL for one of RowMQ's users, by way of the network. */
  private urlOf(user: string): string {
    const url = new URL(this.network.url);
    [url.username, url.password, url.pathname] = [user, PASSWORD, `/${DATABASE}`];
    return url.href;
  }

  /** Brokers and reapers. */
  get processes(): Restartable[] {
    return [...this.brokers, ...this.reapers];
  }

  /** Replaces the brokers by those compiled in another folder. */
  async useBrokers(root: string): Promise<void> {
    await Promise.all(this.brokers.map((broker) => broker.remove()));
    for (const broker of this.brokers) broker.root = root;
    await this.repair();
  }

  /** A store of the test's own, beside the network. Close it. */
  async openStore(): Promise<TestStore> {
    const url = new URL(this.serverUrl);
    url.pathname = `/${DATABASE}`;
    return openStore({ on: url.href });
  }

  /**
   * Everything up, the network whole, the database ready for writes: for what a fault that failed
   * left behind.
   */
  async repair(): Promise<void> {
    this.network.heal();
    await this.startServer();
    await this.setReadOnly(false);
    await this.admin(`SET GLOBAL max_connections = ${MAX_CONNECTIONS}`);
    await Promise.all(this.processes.map((process) => process.start()));
  }

  /** Starts the database where it was, if it does not run. */
  async startServer(): Promise<void> {
    if (this.serverIsUp) return;
    const program = await serverProgram(this.kind);
    const { bufferPoolMegabytes } = this;
    const port = this.server?.port;
    const server = await EmbeddedServer.start({ program, dataDir: this.folder, bufferPoolMegabytes, port });
    this.server = server;
    this.serverIsUp = true;
    void server.exited.then(() => (this.serverIsUp = false));
  }

  async killServer(): Promise<void> {
    await this.server?.kill();
  }

  private get serverUrl(): string {
    if (this.server === undefined) throw new Error('the database was never started');
    return this.server.url;
  }

  /** The database's error log. */
  get errorLog(): string {
    return join(this.folder, this.kind, 'error.log');
  }

  /** Runs one statement as a user who may do everything, beside the network. */
  async admin<T = RowDataPacket>(sql: string): Promise<T[]> {
    const ask = async (): Promise<T[]> => {
      this.adminConnection ??= await this.connect();
      const [rows] = await this.adminConnection.query<RowDataPacket[] | ResultSetHeader>(sql);
      return Array.isArray(rows) ? (rows as T[]) : [];
    };
    try {
      return await ask();
    } catch (error) {
      // It was lost with the server, maybe.
      if ((error as { fatal?: boolean }).fatal !== true && this.adminConnection !== undefined) throw error;
      this.adminConnection = undefined;
      return ask();
    }
  }

  /** A connection of a user who may do everything, beside the network. End it. */
  async connect(): Promise<Connection> {
    const connection = await createConnection({ uri: this.serverUrl });
    connection.on('error', () => undefined);
    await connection.query(`USE ${DATABASE}`).catch(() => undefined);
    // The server's default is a year, and a waiting statement blocks all later ones.
    await connection.query('SET SESSION lock_wait_timeout = 60');
    return connection;
  }

  /** Makes the database read-only for all users but administrators. */
  async setReadOnly(isReadOnly: boolean): Promise<void> {
    const variable = this.kind === 'mysql' ? 'super_read_only' : 'read_only';
    await this.admin(`SET GLOBAL ${variable} = ${isReadOnly ? 'ON' : 'OFF'}`);
    if (!isReadOnly) await this.admin('SET GLOBAL read_only = OFF');
  }

  /** Ends every connection of brokers and reapers. Returns how many. */
  async killConnections(): Promise<number> {
    const rows = await this.admin<{ ID: number }>(`SELECT ID FROM information_schema.PROCESSLIST WHERE ${OF_ROWMQ}`);
    // Some end by themselves meanwhile.
    for (const { ID } of rows) await this.admin(`KILL ${ID}`).catch(() => undefined);
    return rows.length;
  }

  /** Counts the statements like this that are under way, by user. */
  async underWay(condition: string): Promise<Map<string, number>> {
    const rows = await this.admin<{ user: string; n: number }>(
      `SELECT USER AS user, COUNT(*) AS n FROM information_schema.PROCESSLIST WHERE ${OF_ROWMQ} AND ${condition} GROUP BY USER`,
    );
    return new Map(rows.map(({ user, n }) => [user, Number(n)]));
  }

  /** Waits until a reaper has begun one of its duties after this moment, and has carried it out. */
  async untilReaping(deadlineMs = 60_000): Promise<void> {
    const since = Date.now();
    const works = async (): Promise<boolean> => {
      await sleep(200);
      const answer = await fetch(`${this.client.url}/v1/admin/reaper`, { signal: AbortSignal.timeout(deadlineMs) });
      if (!answer.ok) return false;
      const { duties } = (await answer.json()) as ReaperAnswer;
      const runs = duties.flatMap((duty) => duty.runs);
      return runs.some(({ startedAt, error }) => Date.parse(startedAt) > since && error === null);
    };
    await eventually('a reaper at work', works, deadlineMs);
  }

  /** Counts the messages of these queues, settled ones included. */
  async countMessages(namesLike: string): Promise<number> {
    const [row] = await this.admin<{ n: number | string | null }>(
      `SELECT SUM(p.count) AS n FROM ${DATABASE}.pack p JOIN ${DATABASE}.queue q ON q.id = p.queue_id WHERE q.name LIKE '${namesLike}'`,
    );
    return Number(row?.n ?? 0);
  }

  /** Counts the deliveries of these queues, all or only those that have expired. */
  async countDeliveries(namesLike: string, which: 'all' | 'expired' = 'all'): Promise<number> {
    const condition = which === 'all' ? '' : 'AND d.expires_at <= UNIX_TIMESTAMP(NOW(3)) * 1000';
    const [row] = await this.admin<{ n: number }>(
      `SELECT COUNT(*) AS n FROM ${DATABASE}.delivery d JOIN ${DATABASE}.queue q ON q.id = d.queue_id WHERE q.name LIKE '${namesLike}' ${condition}`,
    );
    return Number(row?.n);
  }

  /** Ends everything in any state, and removes the data. */
  async stop(): Promise<void> {
    this.network?.heal();
    await Promise.all(this.processes.map((process) => process.remove()));
    await Promise.all([...this.clients, this.client].map((client) => client?.close()));
    await this.adminConnection?.end().catch(() => undefined);
    await this.network?.close();
    await this.server?.kill();
    process.off('exit', this.killAtExit);
    await rm(this.folder, { recursive: true, force: true });
  }
}
