import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RowmqHttpClient } from '@rowmq/client/core';
import { EmbeddedServer, migrateDatabase, type ServerKind } from '@rowmq/store';
import { type Connection, createConnection, type ResultSetHeader, type RowDataPacket } from 'mysql2/promise';
import { DatabaseProxy } from '../../support/database-proxy.js';
import { type AppProcess, freePort, startApp } from '../../support/processes.js';
import { serverProgram } from '../../support/servers.js';
import { openStore, type TestStore } from '../../support/store.js';
import { eventually } from '../../support/wait.js';

/** All that docs/operations.md says that RowMQ's user needs. */
const PRIVILEGES = 'SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, LOCK TABLES';
const DATABASE = 'rowmq_faults';

/** A process that can be killed and started again at the same place. */
export class Restartable {
  private running: AppProcess | undefined;
  /** What the instances that are gone had written. */
  private written = '';

  constructor(
    private readonly app: 'broker' | 'reaper',
    private readonly settings: Record<string, string>,
    /** The folder of the compiled processes. */
    private readonly dist: string | undefined,
  ) {}

  get isRunning(): boolean {
    return this.running !== undefined;
  }

  /** @param env settings of this start alone. */
  async start(env: Record<string, string> = {}): Promise<void> {
    this.running ??= await startApp(this.app, { ...this.settings, ...env }, { dist: this.dist });
  }

  async kill(): Promise<void> {
    await this.end((process) => process.kill());
  }

  async stop(): Promise<void> {
    await this.end((process) => process.stop());
  }

  output(): string {
    return this.written + (this.running?.output() ?? '');
  }

  private async end(how: (process: AppProcess) => Promise<void>): Promise<void> {
    const process = this.running;
    if (process === undefined) return;
    this.running = undefined;
    await how(process);
    this.written += process.output();
  }
}

export interface RigOptions {
  kind: ServerKind;
  /** Where the server keeps its data. Default: a folder of its own, removed at the end. */
  folder?: string;
  /** Default: what was built. */
  dist?: string;
  bufferPoolMegabytes?: number;
}

/**
 * A whole RowMQ of its own that may be broken: a database server, a network in front of it, two brokers and two reapers, each a real process.
 *
 * RowMQ's user has no more rights than it needs.
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

  static async start({ kind, folder, dist, bufferPoolMegabytes = 256 }: RigOptions): Promise<FaultRig> {
    const own = folder ?? (await mkdtemp(join(tmpdir(), 'rowmq-faults-')));
    const rig = new FaultRig(kind, own, bufferPoolMegabytes);
    process.once('exit', rig.killAtExit);
    try {
      await rig.begin(dist);
      return rig;
    } catch (error) {
      await rig.stop();
      throw error;
    }
  }

  private async begin(dist: string | undefined): Promise<void> {
    await this.startServer();
    await this.admin(`CREATE DATABASE ${DATABASE} CHARACTER SET utf8mb4`);
    await this.admin(`USE ${DATABASE}`);
    await this.admin(`CREATE USER broker@'%' IDENTIFIED BY 'of-the-rig'`);
    await this.admin(`GRANT ${PRIVILEGES} ON ${DATABASE}.* TO broker@'%'`);
    const url = new URL(this.serverUrl);
    [url.username, url.password, url.pathname] = ['broker', 'of-the-rig', `/${DATABASE}`];
    await migrateDatabase(url.href);
    this.network = await DatabaseProxy.start(url.href);
    const database = { ROWMQ_DATABASE_URL: this.network.url };
    for (let index = 0; index < 2; index += 1) {
      const port = await freePort();
      this.clients.push(new RowmqHttpClient({ url: `http://127.0.0.1:${port}`, retries: 0 }));
      this.brokers.push(new Restartable('broker', { ...database, ROWMQ_PORT: String(port) }, dist));
      const often = { ROWMQ_REAPER_INTERVAL_SECONDS: '1', ROWMQ_RETENTION_SECONDS: '60' };
      this.reapers.push(new Restartable('reaper', { ...database, ...often }, dist));
    }
    this.client = new RowmqHttpClient({ url: this.clients.map((client) => client.url), retries: 0 });
    await this.repair();
  }

  /** A store of the test's own, beside the network. Close it. */
  async openStore(): Promise<TestStore> {
    const url = new URL(this.serverUrl);
    url.pathname = `/${DATABASE}`;
    return openStore({ on: url.href });
  }

  /** Everything up, the network whole, the database ready for writes: for what a fault that failed left behind. */
  async repair(): Promise<void> {
    this.network.heal();
    await this.startServer();
    await this.setReadOnly(false);
    await Promise.all([...this.brokers, ...this.reapers].map((process) => process.start()));
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

  /** What the database wrote into its error log. */
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
    return connection;
  }

  /** For everybody who is not an administrator. */
  async setReadOnly(isReadOnly: boolean): Promise<void> {
    const variable = this.kind === 'mysql' ? 'super_read_only' : 'read_only';
    await this.admin(`SET GLOBAL ${variable} = ${isReadOnly ? 'ON' : 'OFF'}`);
    if (!isReadOnly) await this.admin('SET GLOBAL read_only = OFF');
  }

  /** Ends every connection of brokers and reapers. Returns how many. */
  async killConnections(): Promise<number> {
    const rows = await this.admin<{ ID: number }>(
      `SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'broker'`,
    );
    // Some end by themselves meanwhile.
    for (const { ID } of rows) await this.admin(`KILL ${ID}`).catch(() => undefined);
    return rows.length;
  }

  /** Waits until a statement like this is under way. */
  async untilUnderWay(pattern: string, deadlineMs: number): Promise<void> {
    const sql = `SELECT 1 FROM information_schema.PROCESSLIST WHERE USER = 'broker' AND INFO LIKE '${pattern}'`;
    await eventually(`a statement like ${pattern}`, async () => (await this.admin(sql)).length > 0, deadlineMs);
  }

  /** How many deliveries there are of queues with these names. */
  async countDeliveries(namesLike: string): Promise<number> {
    const [row] = await this.admin<{ n: number }>(
      `SELECT COUNT(*) AS n FROM ${DATABASE}.delivery d JOIN ${DATABASE}.queue q ON q.id = d.queue_id WHERE q.name LIKE '${namesLike}'`,
    );
    return Number(row?.n);
  }

  /** Ends everything, however it stands, and removes the data. */
  async stop(): Promise<void> {
    this.network?.heal();
    await Promise.all([...this.brokers, ...this.reapers].map((process) => process.kill()));
    await Promise.all([...this.clients, this.client].map((client) => client?.close()));
    await this.adminConnection?.end().catch(() => undefined);
    await this.network?.close();
    await this.server?.kill();
    process.off('exit', this.killAtExit);
    await rm(this.folder, { recursive: true, force: true });
  }
}
