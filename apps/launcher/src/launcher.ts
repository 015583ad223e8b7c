import { join } from 'node:path';
import { Supervisor } from '@rowmq/runtime';
import { migrateDatabase } from '@rowmq/store';
import { startApp } from './app-process.js';
import { type LaunchedDatabase, launchDatabase } from './database.js';
import type { LauncherConfig } from './launcher.config.js';
import { ChildRecord } from './left-over.js';
import { aborted, allOrFirstFailure, refuseTakenPort } from './starting.js';
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
