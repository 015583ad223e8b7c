import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { QueueSettings } from '@rowmq/contract';
import { RowmqHttpClient } from '@rowmq/client/core';
import { EmbeddedServer, findServer, type ServerKind, redoLogArgument } from '@rowmq/mysql-server';
import { migrateDatabase } from '@rowmq/store';
import { copyFreshData } from '../../test/support/fresh-data.js';
import { type AppProcess, freePort, startApp } from '../../test/support/processes.js';
import { DatabaseProbe } from './database-probe.js';
import { makePartitions } from './partitions.js';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Longer than any measurement. */
const LEASE_SECONDS = 3600;

/** The servers to measure on. */
export interface ServerOptions {
  /** Kinds of embedded servers, one after the other. */
  servers: readonly ServerKind[];
  /** A server that runs on this machine, in place of embedded ones. Its user may do everything. */
  databaseUrl?: string | undefined;
  /** Buffer pool of an embedded server. */
  bufferPoolMegabytes: number;
}

export interface RigOptions extends ServerOptions {
  /** Measure with these brokers, which somebody else stops, and on their server. */
  rig?: Rig | undefined;
  /** Settings of every broker. */
  brokerEnv: Record<string, string>;
  /** Since when there are partitions for messages, ms since 1970; default: now. */
  partitionsFrom?: number;
}

export interface RunningBroker {
  url: string;
  pid: number;
}

export interface RunningServer {
  /** Such as `mysql 9.7.4`. */
  name: string;
  /** `mysql://…`, of a user who may do everything. */
  url: string;
  pid: number;
  /** All files of the server are below it. */
  folder: string;
  probe: DatabaseProbe;
}

/**
 * A durable database server with RowMQ's schema, and the brokers on it. {@link onEachServer} ends
 * all of it.
 */
export class Rig {
  private readonly running = new Map<string, Promise<RunningBroker & AppProcess>>();
  private queues = 0;

  constructor(
    readonly database: RunningServer,
    private readonly brokerEnv: Record<string, string>,
  ) {}

  /**
   * The broker with these settings beyond the usual ones. The first call starts it; later calls
   * share it.
   */
  async broker(env: Record<string, string> = {}): Promise<RunningBroker> {
    return this.shared(JSON.stringify(env), env);
  }

  /** Brokers with the usual settings, as many as asked for. The first is that of {@link broker}. */
  async brokers(count: number): Promise<RunningBroker[]> {
    const brokers = [await this.broker()];
    while (brokers.length < count) brokers.push(await this.shared(`broker ${brokers.length + 1}`, {}));
    return brokers;
  }

  /** Fresh queues. Returns their names. */
  async newQueues(count: number, settings: Partial<QueueSettings> = {}): Promise<string[]> {
    const { url } = await this.broker();
    const client = new RowmqHttpClient({ url });
    const names = Array.from({ length: count }, () => `bench-${(this.queues += 1)}`);
    for (const name of names) await client.putQueue(name, { leaseSeconds: LEASE_SECONDS, ...settings });
    await client.close();
    return names;
  }

  /** Creates a topic to which fresh queues are subscribed. */
  async newTopic(subscribers: number): Promise<{ topic: string; queues: string[] }> {
    const queues = await this.newQueues(subscribers);
    const { url } = await this.broker();
    const client = new RowmqHttpClient({ url });
    const topic = `bench-topic-${this.queues}`;
    await client.putTopic(topic);
    for (const queue of queues) await client.putSubscription(topic, queue);
    await client.close();
    return { topic, queues };
  }

  async close(): Promise<void> {
    for (const broker of this.running.values()) await (await broker).stop();
  }

  private async shared(key: string, env: Record<string, string>): Promise<RunningBroker> {
    const broker = this.running.get(key) ?? this.startBroker(env);
    this.running.set(key, broker);
    return broker;
  }

  private async startBroker(env: Record<string, string>): Promise<RunningBroker & AppProcess> {
    const port = await freePort();
    const app = await startApp('broker', {
      ROWMQ_DATABASE_URL: this.database.url,
      ROWMQ_PORT: String(port),
      ...this.brokerEnv,
      ...env,
    });
    return { ...app, url: `http://127.0.0.1:${port}` };
  }
}

/** Measures with brokers on one server after the other. Returns the results by server. */
export async function onEachServer<T>(options: RigOptions, work: (rig: Rig) => Promise<T>): Promise<Record<string, T>> {
  if (options.rig !== undefined) return { [options.rig.database.name]: await work(options.rig) };
  return withEachServer(options, async (server) => {
    await makePartitions(server.url, options.partitionsFrom);
    const rig = new Rig(server, options.brokerEnv);
    try {
      return await work(rig);
    } finally {
      await rig.close();
    }
  });
}

/**
 * Measures on one server after the other. Returns the results by server. Each is durable and has
 * RowMQ's schema in a fresh database. Stops the servers that it started and removes the database,
 * also on Ctrl-C.
 */
export async function withEachServer<T>(
  options: ServerOptions,
  work: (server: RunningServer) => Promise<T>,
): Promise<Record<string, T>> {
  const results: Record<string, T> = {};
  const measure = async (server: RunningServer): Promise<void> => {
    results[server.name] = await work(server);
  };
  if (options.databaseUrl !== undefined) await withRunningServer(options.databaseUrl, measure);
  else for (const kind of options.servers) await withEmbeddedServer(kind, options, measure);
  return results;
}

/** Starts a server on a folder of its own, and removes both afterwards. */
async function withEmbeddedServer(
  kind: ServerKind,
  { bufferPoolMegabytes }: ServerOptions,
  work: (server: RunningServer) => Promise<void>,
): Promise<void> {
  const serversDir = process.env['ROWMQ_SERVERS_DIR'];
  const program = await findServer({ kinds: [kind], dataDir: join(ROOT, '.rowmq-test'), serversDir });
  const dataDir = await mkdtemp(join(tmpdir(), 'rowmq-bench-'));
  await unlessInterrupted(
    async (signal, interrupted) => {
      await copyFreshData(program, dataDir);
      const server = await EmbeddedServer.start({
        program,
        dataDir,
        bufferPoolMegabytes,
        // A server under such a load should have a large one.
        extraArguments: [redoLogArgument(program.kind, 1024)],
        signal,
      });
      try {
        const facts = { name: `${kind} ${program.version}`, url: server.url, pid: server.pid, folder: dataDir };
        await Promise.race([withSchema(facts, work), interrupted]);
      } finally {
        await server.stop();
      }
    },
    () => rm(dataDir, { recursive: true, force: true }),
  );
}

/** Creates a database on a server that somebody else runs, and drops it afterwards. */
async function withRunningServer(url: string, work: (server: RunningServer) => Promise<void>): Promise<void> {
  const database = `rowmq_bench_${randomBytes(6).toString('hex')}`;
  const probe = await DatabaseProbe.open(url);
  const own = new URL(url);
  own.pathname = `/${database}`;
  await unlessInterrupted(
    async (_, interrupted) => {
      const facts = await probe.serverFacts();
      await probe.query(`CREATE DATABASE ${database} CHARACTER SET utf8mb4`);
      await Promise.race([withSchema({ ...facts, url: own.href }, work), interrupted]);
    },
    async () => {
      await probe.query(`DROP DATABASE IF EXISTS ${database}`);
      await probe.close();
    },
  );
}

/** Creates RowMQ's schema in the database of a server that must be durable. */
async function withSchema(
  server: Omit<RunningServer, 'probe'>,
  work: (server: RunningServer) => Promise<void>,
): Promise<void> {
  await migrateDatabase(server.url);
  const probe = await DatabaseProbe.open(server.url);
  try {
    await probe.assertDurable();
    await work({ ...server, probe });
  } finally {
    await probe.close();
  }
}

/** Runs `work`, then `cleanUp`. A request to stop this process makes `work` fail first. */
async function unlessInterrupted(
  work: (signal: AbortSignal, interrupted: Promise<never>) => Promise<void>,
  cleanUp: () => Promise<void>,
): Promise<void> {
  const interruption = watchForInterruption();
  try {
    await work(interruption.signal, interruption.happened);
  } finally {
    interruption.stopWatching();
    await cleanUp();
  }
}

/** Turns the signals that would end this process, and leave the server running, into a failure. */
function watchForInterruption(): { signal: AbortSignal; happened: Promise<never>; stopWatching: () => void } {
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  const controller = new AbortController();
  const interrupt = (): void => controller.abort();
  for (const signal of signals) process.once(signal, interrupt);
  const happened = new Promise<never>((_, reject) => {
    controller.signal.addEventListener('abort', () => reject(new Error('interrupted')));
  });
  // Until somebody awaits it, a rejection is not an unhandled one.
  happened.catch(() => undefined);
  return {
    signal: controller.signal,
    happened,
    stopWatching: () => {
      for (const signal of signals) process.off(signal, interrupt);
    },
  };
}
