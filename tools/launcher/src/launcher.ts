import { join } from 'node:path';
import type { Supervisor } from '@rowmq/runtime';
import { migrateDatabase } from '@rowmq/store';
import { type LaunchedDatabase, launchDatabase, NOT_ENCRYPTED } from './database.js';
import type { LauncherConfig } from './launcher.config.js';
import { ChildRecord } from './left-over.js';
import { allOrFirstFailure, refuseTakenPort } from './starting.js';
import { superviseApp } from './supervised.js';
import { type Program, startThenStop } from './until-stopped.js';
import { createDemoQueue, welcome } from './welcome.js';

/**
 * Starts database, migrations, broker and reaper in this order, keeps them running, and stops them
 * in the opposite order.
 */
export class Launcher implements Program {
  private database: LaunchedDatabase | undefined;
  private apps: Supervisor[] = [];

  constructor(
    private readonly config: LauncherConfig,
    private readonly environment: NodeJS.ProcessEnv,
    private readonly log: (line: string) => void,
  ) {}

  run(stopping: AbortSignal): Promise<void> {
    return startThenStop(
      stopping,
      () => this.start(stopping),
      () => this.stop(),
    );
  }

  async kill(): Promise<void> {
    await Promise.all(this.apps.map((app) => app.kill()));
    await this.database?.kill();
  }

  private async start(signal: AbortSignal): Promise<void> {
    const { config, log } = this;
    this.database = await launchDatabase(config, log, signal);
    const { url, tls, folder, description } = this.database;
    // Without a folder of our own there is no lock, so nobody can tell our children from those of
    // another launcher.
    const record = folder === undefined ? undefined : new ChildRecord(join(folder, 'children.json'), log);
    await record?.endLeftOver();
    await refuseTakenPort(config);

    const applied = await migrateDatabase(url, tls, { untestedAllowed: config.databaseUntested });
    if (applied.length > 0) log(`Migrated the database: ${applied.join(', ')}`);
    signal.throwIfAborted();

    const environment = {
      ...this.environment,
      ROWMQ_DATABASE_URL: url,
      ROWMQ_DATABASE_URL_FILE: '',
      ...(tls === undefined && NOT_ENCRYPTED),
    };
    const family = { environment, stopSeconds: config.stopSeconds, record, log, signal };
    const settings = { ROWMQ_HOST: config.host, ROWMQ_PORT: String(config.port) };
    this.apps = [superviseApp(family, 'broker', { settings }), superviseApp(family, 'reaper')];
    await allOrFirstFailure(this.apps.map((app) => app.start()));
    await createDemoQueue(config);
    log(welcome(config, description));
  }

  private async stop(): Promise<void> {
    if (this.apps.length > 0) this.log('Stopping broker and reaper …');
    await Promise.all(this.apps.map((app) => app.stop()));
    if (this.database?.folder !== undefined) this.log('Stopping the database …');
    await this.database?.stop();
  }
}
