import { createServer } from 'node:net';
import { join } from 'node:path';
import { Supervisor } from '@rowmq/runtime';
import { migrateDatabase } from '@rowmq/store';
import { startApp } from './app-process.js';
import { type LaunchedDatabase, launchDatabase } from './database.js';
import type { LauncherConfig } from './launcher.config.js';
import { ChildRecord } from './left-over.js';
import { createDemoQueue, welcome } from './welcome.js';

/** Starts database, migrations, broker and reaper in this order, keeps them running, and stops them in the opposite order. */
export class Launcher {
  private readonly stopping = new AbortController();
  private database: LaunchedDatabase | undefined;
  private apps: Supervisor[] = [];

  constructor(
    private readonly config: LauncherConfig,
    private readonly environment: NodeJS.ProcessEnv,
    private readonly log: (line: string) => void,
  ) {}

  /** Resolves when {@link requestStop} was called and everything is stopped; rejects, everything stopped too, when the first start fails. */
  async run(): Promise<void> {
    try {
      await this.start();
      await aborted(this.stopping.signal);
    } catch (error) {
      // Giving the start up is what was asked for, and no failure.
      if (!this.stopping.signal.aborted) throw error;
    } finally {
      await this.stop();
    }
  }

  /** Begins to stop; {@link run} resolves when that is done. */
  requestStop(): void {
    this.stopping.abort();
  }

  /** Ends everything at once. */
  async kill(): Promise<void> {
    this.stopping.abort();
    await Promise.all(this.apps.map((app) => app.kill()));
    await this.database?.kill();
  }

  private async start(): Promise<void> {
    const { config, log } = this;
    const { signal } = this.stopping;
    this.database = await launchDatabase(config, log, signal);
    const { url, folder, description } = this.database;
    // Without a folder of our own there is no lock, so nobody can tell our children from those of another launcher.
    const record = folder === undefined ? undefined : new ChildRecord(join(folder, 'children.json'));
    await record?.endLeftOver(log);
    await refuseTakenPort(config);

    const applied = await migrateDatabase(url);
    if (applied.length > 0) log(`Migrated the database: ${applied.join(', ')}`);
    signal.throwIfAborted();

    const environment = {
      ...this.environment,
      ROWMQ_DATABASE_URL: url,
      ROWMQ_HOST: config.host,
      ROWMQ_PORT: String(config.port),
      ROWMQ_STOP_SECONDS: String(config.stopSeconds),
    };
    this.apps = (['broker', 'reaper'] as const).map((name) => {
      const startOnce = async (stopping: AbortSignal) => {
        const app = await startApp(name, environment, config.stopSeconds, AbortSignal.any([signal, stopping]));
        await record?.note(name, app.pid);
        return app;
      };
      return new Supervisor(name, startOnce, log);
    });
    await allOrFirstFailure(this.apps.map((app) => app.start()));
    await createDemoQueue(config);
    log(welcome(config, description));
  }

  private async stop(): Promise<void> {
    this.stopping.abort();
    if (this.apps.length > 0) this.log('Stopping broker and reaper …');
    await Promise.all(this.apps.map((app) => app.stop()));
    if (this.database?.folder !== undefined) this.log('Stopping the database …');
    await this.database?.stop();
  }
}

/** Waits for all, and only then fails with the first failure: so that nothing starts behind the back of a stop. */
async function allOrFirstFailure(starts: Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(starts)).find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((done) => signal.addEventListener('abort', () => done(), { once: true }));
}

/** Finds the commonest reason for a failing first start before anything fails on it. */
async function refuseTakenPort({ host, port }: LauncherConfig): Promise<void> {
  await new Promise<void>((done, fail) => {
    const probe = createServer();
    probe.once('error', (error: NodeJS.ErrnoException) =>
      fail(
        error.code === 'EADDRINUSE'
          ? new Error(`Port ${port} on ${host} is taken. Stop what uses it, or set ROWMQ_PORT to another port.`)
          : new Error(`Cannot listen on ${host}, port ${port}: ${error.message}. See ROWMQ_HOST and ROWMQ_PORT.`),
      ),
    );
    probe.listen(port, host, () => probe.close(() => done()));
  });
}
