import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RowmqHttpClient } from '@rowmq/client/core';
import { EmbeddedGroup, type EmbeddedServer, type GroupMember } from '@rowmq/mysql-server';
import { migrateDatabase } from '@rowmq/store';
import { type Connection, createConnection } from 'mysql2/promise';
import { type AppProcess, type Broker, startBroker, startReaper } from '../support/processes.js';
import { Prober } from '../support/prober.js';
import { serverProgram, type TestDatabase } from '../support/servers.js';
import { openStore } from '../support/store.js';
import { eventually } from '../support/wait.js';
import { Isolation } from './isolation.js';

const DAY_MINUTES = 24 * 60;
/**
 * A failover, or a member's return, takes seconds; on a machine that is busy with other tests as
 * well, more.
 */
export const DEADLINE_MS = 90_000;
/** The reapers drop no old partition that a test has filled. */
export const KEEP_PARTITIONS = { ROWMQ_RETENTION_SECONDS: '31536000', ROWMQ_REAPER_INTERVAL_SECONDS: '1' };

/** Three database servers, two brokers and two reapers, all real, on this machine. */
export class HaRig {
  readonly brokers: Broker[] = [];
  readonly reapers: AppProcess[] = [];
  readonly database: TestDatabase;
  prober!: Prober;
  readonly #care = new AbortController();
  #caring: Promise<void> | undefined;
  #proberClient: RowmqHttpClient | undefined;
  /** Brokers and reapers that were started, whether or not they still run. */
  readonly #started: AppProcess[] = [];
  // SIGINT ends vitest without its teardown, and nobody would find these servers again.
  readonly #killAtExit = (): void => void this.group.kill();

  private constructor(
    readonly group: EmbeddedGroup,
    private readonly folder: string,
    private readonly lines: string[],
    /**
     * With which a member can be cut off from the others; undefined if it was not asked for, or
     * the machine does not have it.
     */
    readonly isolation: Isolation | undefined,
  ) {
    process.once('exit', this.#killAtExit);
    this.database = { name: 'rowmq', url: group.url, drop: async () => undefined };
  }

  /**
   * @param isFull prepares what only the tests beyond the smallest form need: a network for each
   * server, if the machine has that, and partitions of the past.
   */
  static async start({ isFull }: { isFull: boolean }): Promise<HaRig> {
    const found = await serverProgram('mysql');
    const folder = await mkdtemp(join(tmpdir(), 'rowmq-ha-'));
    const lines: string[] = [];
    const log = (line: string): void => void lines.push(`${new Date().toISOString()} ${line}`);
    const isolation = isFull ? await Isolation.create(found, folder) : undefined;
    const program = isolation?.program ?? found;
    const group = await EmbeddedGroup.prepare({ program, folder, bufferPoolMegabytes: 128, log });
    const rig = new HaRig(group, folder, lines, isolation);
    try {
      await isolation?.open(
        group.members,
        group.members.map(({ groupPort }) => groupPort),
      );
      await Promise.all(group.members.map((member) => member.start()));
      await group.care.form();
      rig.#caring = group.care.keepTogether(rig.#care.signal);
      await migrateDatabase(group.url);
      if (isFull) await rig.makePastPartitions();
      rig.brokers.push(...(await Promise.all([rig.newBroker(), rig.newBroker()])));
      rig.reapers.push(...(await Promise.all([rig.newReaper(), rig.newReaper()])));
      rig.#proberClient = new RowmqHttpClient({ url: rig.brokerUrls, retries: 0 });
      rig.prober = await Prober.start(rig.#proberClient, 'probe', { everyMs: isFull ? undefined : 200 });
    } catch (error) {
      await rig.end();
      throw new Error(`The rig does not come up:\n${rig.log}`, { cause: error });
    }
    return rig;
  }

  /** The group's log. */
  get log(): string {
    return this.lines.join('\n');
  }

  get brokerUrls(): string[] {
    return this.brokers.map(({ url }) => url);
  }

  /** Starts a broker of one test, which knows the group or only one member. */
  async newBroker(env: Record<string, string> = {}, member?: GroupMember): Promise<Broker> {
    const database = member === undefined ? this.database : { ...this.database, url: member.url };
    const broker = await startBroker({ database, env });
    this.#started.push(broker);
    return broker;
  }

  /** Starts a reaper of one test. */
  async newReaper(): Promise<AppProcess> {
    const reaper = await startReaper(this.database, KEEP_PARTITIONS);
    this.#started.push(reaper);
    return reaper;
  }

  /** Kills brokers and reapers that tests started and did not stop. */
  async endTests(): Promise<void> {
    const kept = new Set([...this.brokers, ...this.reapers]);
    await Promise.all(this.#started.filter((app) => !kept.has(app)).map((app) => app.kill()));
    this.#started.splice(0, Infinity, ...kept);
  }

  /** Waits until there is a primary, other than the one given. */
  async primary(otherThan?: GroupMember): Promise<GroupMember> {
    return eventually(
      () => `a primary\n${this.log}`,
      async () => {
        const primary = await this.group.primary();
        return primary !== undefined && primary !== otherThan && primary;
      },
      DEADLINE_MS,
    );
  }

  /** Waits until all three members are in the group. */
  async whole(): Promise<void> {
    await eventually(
      () => `three members\n${this.log}`,
      () => this.group.care.whole(),
      DEADLINE_MS,
    );
  }

  /** A connection of the user who may do everything, to one member. */
  async admin(member: GroupMember): Promise<Connection> {
    const connection = await createConnection({ uri: member.url, connectTimeout: 2000 });
    connection.on('error', () => undefined);
    return connection;
  }

  /** Ends everything. With `keep`, the folder stays. */
  async end({ keep = false }: { keep?: boolean } = {}): Promise<void> {
    const unexpected = await this.prober?.stop().catch((error: unknown) => error);
    await this.#proberClient?.close();
    await Promise.all(this.#started.map((app) => app.kill()));
    this.#care.abort();
    await this.#caring;
    await this.group.kill();
    await this.isolation?.close();
    if (keep) console.log(`The data of the group is kept in ${this.folder}\n${this.log}`);
    else await rm(this.folder, { recursive: true, force: true });
    process.off('exit', this.#killAtExit);
    if (unexpected !== undefined) throw unexpected as Error;
  }

  /** Call it before a reaper runs: no partition can be made before an existing one. */
  private async makePastPartitions(): Promise<void> {
    const store = await openStore({ on: this.group.url });
    const now = Date.now() - 2 * DAY_MINUTES * 60_000;
    await store.at(now).partitions.createMissing({ widthMinutes: 60, advanceMinutes: 2 * DAY_MINUTES });
    await store.close();
  }
}

/** The process of a member. Throws if it does not run. */
export function serverOf(member: GroupMember): EmbeddedServer {
  if (member.server === undefined) throw new Error(`member ${member.number} does not run`);
  return member.server;
}

/** Continues a stopped process if it still exists. */
export function wake(pid: number): void {
  try {
    process.kill(pid, 'SIGCONT');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
