import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { RowmqHttpClient } from '@rowmq/client/core';
import { EmbeddedServer, findServer, type ServerKind } from '@rowmq/mysql-server';
import { migrateDatabase } from '@rowmq/store';
import { type AppProcess, freePort, startApp } from '../../test/support/processes.js';
import { DatabaseProbe } from './database-probe.js';
import { makePartitions } from './partitions.js';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Longer than any measurement. */
const LEASE_SECONDS = 3600;

export interface RigOptions {
  bufferPoolMegabytes: number;
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
 * A durable database server with RowMQ's schema, and the brokers on it. {@link withRig} ends all of
 * it.
 */
export class Rig {
  private readonly brokers = new Map<string, Promise<RunningBroker & AppProcess>>();
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
    const key = JSON.stringify(env);
    const broker = this.brokers.get(key) ?? this.startBroker(env);
    this.brokers.set(key, broker);
    return broker;
  }

  /** Fresh queues. Returns their names. */
  async newQueues(count: number): Promise<string[]> {
    const { url } = await this.broker();
    const client = new RowmqHttpClient({ url });
    const names = Array.from({ length: count }, () => `bench-${(this.queues += 1)}`);
    for (const name of names) await client.putQueue(name, { leaseSeconds: LEASE_SECONDS });
    await client.close();
    return names;
  }

  async close(): Promise<void> {
    for (const broker of this.brokers.values()) await (await broker).stop();
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

/** Measures on one server after the other; what each answered, by their names. */
export async function onEachServer<T>(
  options: RigOptions & { servers: readonly ServerKind[] },
  work: (rig: Rig) => Promise<T>,
): Promise<Record<string, T>> {
  const results: Record<string, T> = {};
  for (const kind of options.servers) {
    await withRig(kind, options, async (rig) => {
      results[rig.database.name] = await work(rig);
    });
  }
  return results;
}

/** Starts a server, gives it to `work` and stops all that was started, also on Ctrl-C. */
export async function withRig<T>(kind: ServerKind, options: RigOptions, work: (rig: Rig) => Promise<T>): Promise<T> {
  return withServer(kind, options, async (server) => {
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
 * Starts a durable server with RowMQ's schema on a folder of its own. Stops the server and removes
 * the folder when `work` is done, also on Ctrl-C.
 */
export async function withServer<T>(
  kind: ServerKind,
  { bufferPoolMegabytes }: Pick<RigOptions, 'bufferPoolMegabytes'>,
  work: (server: RunningServer) => Promise<T>,
): Promise<T> {
  const serversDir = process.env['ROWMQ_SERVERS_DIR'];
  const program = await findServer({ kinds: [kind], dataDir: join(ROOT, '.rowmq-test'), serversDir });
  const dataDir = await mkdtemp(join(tmpdir(), 'rowmq-bench-'));
  const interruption = watchForInterruption();
  let server: EmbeddedServer | undefined;
  try {
    server = await EmbeddedServer.start({ program, dataDir, bufferPoolMegabytes, signal: interruption.signal });
    await migrateDatabase(server.url);
    const probe = await DatabaseProbe.open(server.url);
    await probe.assertDurable();
    const running = { name: `${kind} ${program.version}`, url: server.url, pid: server.pid, folder: dataDir, probe };
    const result = await Promise.race([work(running), interruption.happened]);
    await probe.close();
    return result;
  } finally {
    interruption.stopWatching();
    await server?.stop();
    await rm(dataDir, { recursive: true, force: true });
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
