import { join } from 'node:path';
import { Supervisor } from '@rowmq/runtime';
import { EmbeddedGroup, findServer } from '@rowmq/mysql-server';
import { migrateDatabase } from '@rowmq/store';
import { NOT_ENCRYPTED, refuseUnwritable } from '../database.js';
import type { LauncherConfig } from '../launcher.config.js';
import { ChildRecord } from '../left-over.js';
import { allOrFirstFailure, refuseTakenPort } from '../starting.js';
import { asRunning, type Family, superviseApp } from '../supervised.js';
import { type Program, startThenStop } from '../until-stopped.js';
import { brokerAddress, createDemoQueue } from '../welcome.js';
import { haWelcome } from './ha-welcome.js';

/** Brokers, and reapers as well: with two of each, one can stand in for the other. */
const COUNT = 2;
/** Three servers on one machine: small unless told otherwise. */
const BUFFER_POOL_MB = 256;

/**
 * Starts three MySQL servers as one group, migrations, two brokers and two reapers on this
 * machine, keeps them running, and stops them in the opposite order.
 */
export class HaLauncher implements Program {
  private readonly endCare = new AbortController();
  private group: EmbeddedGroup | undefined;
  private servers: Supervisor[] = [];
  private apps: Supervisor[] = [];
  private care: Promise<void> | undefined;

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
    this.endCare.abort();
    await Promise.all([...this.apps, ...this.servers].map((process) => process.kill()));
  }

  private async start(signal: AbortSignal): Promise<void> {
    const { config, log } = this;
    const folder = join(config.dataDir, 'ha');
    await refuseUnwritable(config.dataDir, 'ROWMQ_DATA_DIR');
    const program = await findServer({
      kinds: ['mysql'],
      dataDir: config.dataDir,
      serversDir: config.serversDir,
      log,
      signal,
    });
    const bufferPoolMegabytes = config.bufferPoolMegabytes ?? BUFFER_POOL_MB;
    const group = await EmbeddedGroup.prepare({ program, folder, bufferPoolMegabytes, log }, signal);
    this.group = group;
    this.servers = group.members.map((member) => {
      const startOnce = async (stopping: AbortSignal) =>
        asRunning(await member.start(AbortSignal.any([signal, stopping])));
      return new Supervisor(member.name, startOnce, log);
    });
    log(`Starting three MySQL ${program.version} servers …`);
    await allOrFirstFailure(this.servers.map((server) => server.start()));
    // The members' folders are locked by now, so what the record names is an earlier run's.
    const record = new ChildRecord(join(folder, 'children.json'), log);
    await record.endLeftOver();
    for (const address of this.addresses()) await refuseTakenPort(address);
    await group.care.form(signal);
    this.care = group.care.keepTogether(this.endCare.signal);

    const applied = await migrateDatabase(group.url);
    if (applied.length > 0) log(`Migrated the database: ${applied.join(', ')}`);
    signal.throwIfAborted();
    const environment = { ...this.environment, ROWMQ_DATABASE_URL: group.url, ...NOT_ENCRYPTED };
    this.apps = this.superviseApps({ environment, stopSeconds: config.stopSeconds, record, log, signal });
    await allOrFirstFailure(this.apps.map((app) => app.start()));
    await createDemoQueue(config);
    log(haWelcome(this.addresses().map(brokerAddress), group, config.adminKey !== undefined));
  }

  private async stop(): Promise<void> {
    if (this.apps.length > 0) this.log('Stopping brokers and reapers …');
    await Promise.all(this.apps.map((app) => app.stop()));
    this.endCare.abort();
    await this.care;
    if (this.servers.length > 0) this.log('Stopping the database …');
    const primary = await this.group?.primary().catch(() => undefined);
    const isPrimary = (_: Supervisor, index: number): boolean => this.group?.members[index] === primary;
    await Promise.all(this.servers.filter((server, index) => !isPrimary(server, index)).map((server) => server.stop()));
    await Promise.all(this.servers.filter(isPrimary).map((server) => server.stop()));
  }

  private superviseApps(family: Family): Supervisor[] {
    return [
      ...this.addresses().map(({ host, port }, index) =>
        superviseApp(family, 'broker', {
          name: `broker ${index + 1}`,
          settings: { ROWMQ_HOST: host, ROWMQ_PORT: String(port) },
        }),
      ),
      ...Array.from({ length: COUNT }, (_, index) => superviseApp(family, 'reaper', { name: `reaper ${index + 1}` })),
    ];
  }

  /** The brokers' addresses: the configured port and the next. */
  private addresses(): Pick<LauncherConfig, 'host' | 'port'>[] {
    const { host, port } = this.config;
    return Array.from({ length: COUNT }, (_, index) => ({ host, port: port + index }));
  }
}
