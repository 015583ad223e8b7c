import { rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { messageIdIn, PACK_MESSAGES, packIdOf, parseMessageId, RowmqError, type EnqueueRequest } from '@rowmq/contract';
import { EmbeddedServer } from '@rowmq/mysql-server';
import {
  Database,
  JobRepository,
  MessageRepository,
  MinuteRepository,
  migrateDatabase,
  openDataSource,
  poolOf,
  QueueRepository,
  type Row,
  TopicRepository,
  SettledRepository,
  UnleasedRepository,
  type Transaction,
  type WriteResult,
} from '@rowmq/store';
import { enqueue } from '../../libs/typeorm/src/index.js';
import type { DataSource, QueryRunner } from 'typeorm';
import { DeadLetterDeliveries } from '../../apps/reaper/src/duties/dead-letter-deliveries.js';
import { ExpireDeliveries } from '../../apps/reaper/src/duties/expire-deliveries.js';
import { commits, type Cut, type CuttingProxy, startCuttingProxy } from '../support/cutting-proxy.js';
import { SessionClock } from '../support/clock.js';
import { copyFreshData } from '../support/fresh-data.js';
import { endLeftOver } from '../support/servers-global-setup.js';
import { serverProgram } from '../support/servers.js';
import { keyOf, type Settings } from '@rowmq/client/testing';
import { BROKERS, QUEUES, TOPIC } from './steps.js';

/** The start time of every history. */
export const START = 1_800_000_000_000;
const INSTANT_MS = 0.000_001;
const LATE_MS = 60;
const TRIES_UNTIL_NOTICED = 500;
/** The space that an empty server needs. It deletes its binlog files after ten minutes. */
const ROOM_BYTES = 4 * 1024 ** 3;
const FOLDER = 'rowmq-model';

/** The parts of a broker that the model covers. */
export interface Broker {
  batches: MessageRepository;
  queues: QueueRepository;
  jobs: JobRepository;
}

/** A message that the database owes: its part of a row of `delivery`. */
export interface StoredDelivery {
  queue: string;
  priority: number;
  receiveCount: number;
  availableAt: number;
  expiresAt: number;
  producerExpiresAt: number | null;
  token: string | null;
}

/** A row of `delivery`, which owes up to 32 messages. */
interface StoredRow extends Omit<StoredDelivery, 'queue'> {
  packId: Buffer;
  queueId: number;
  members: number;
  part: number;
}

/** Short enough for a history to outlive it. */
export const DEDUPLICATION_SECONDS = 60;
/** The broker waits for a record for two seconds. */
const BLOCKED_WITHIN_MS = 1500;

/**
 * The store under test: a database, two brokers, a reaper, and a service with its own transaction.
 * The clock moves only on demand. The world moves the sessions' time (`SET timestamp`) and the
 * brokers' (`performance.now`) together. The code runs as in production, by the database's clock,
 * and no test waits.
 */
export class World {
  readonly ids = new Map<string, number>();
  brokers: Broker[] = [];
  now = START;
  /** Number of steps of the history. */
  steps = 0;
  private readonly clock = new SessionClock(() => this.now);
  private readonly lost: number[] = [];
  private readonly performanceNow = performance.now.bind(performance);
  private isCutting = false;
  private transaction: QueryRunner | undefined;

  private constructor(
    private readonly server: OwnServer,
    private readonly proxy: CuttingProxy,
    private readonly sources: Record<'direct' | 'cut' | 'service', DataSource>,
    readonly database: TrackedDatabase,
  ) {
    const direct = poolOf(sources.direct);
    const cut = poolOf(sources.cut);
    this.clock.drive(sources.direct);
    this.clock.drive(sources.cut);
    cut.on('connection', (connection) => {
      const destroy = connection.destroy.bind(connection);
      connection.destroy = () => {
        this.lost.push(connection.threadId);
        destroy();
      };
    });
    const getDirect = direct.getConnection.bind(direct);
    direct.getConnection = (callback) => (this.isCutting ? cut.getConnection(callback) : getDirect(callback));
    // Two steps are never at the same instant, though the database may show the same millisecond.
    performance.now = () => this.now - START + this.steps * INSTANT_MS;
  }

  static async open(): Promise<World> {
    const server = await startOwnServer();
    const { url } = server;
    const proxy = await startCuttingProxy(url, { lateMs: LATE_MS });
    const sources = {
      direct: await openDataSource({ url, poolSize: 6 }),
      cut: await openDataSource({ url: proxy.url, poolSize: 6 }),
      service: await openDataSource({ url, poolSize: 1 }),
    };
    const world = new World(server, proxy, sources, new TrackedDatabase(sources.direct));
    const queues = new QueueRepository(world.database);
    for (const name of QUEUES)
      world.ids.set(name, (await queues.put(name, { deduplicationSeconds: DEDUPLICATION_SECONDS })).queue.id);
    const topics = new TopicRepository(world.database);
    await topics.put(TOPIC.name, { deduplicationSeconds: DEDUPLICATION_SECONDS });
    for (const { queue, filter } of TOPIC.subscriptions) await topics.putSubscription(TOPIC.name, queue, filter);
    // Ids have the real time, which is long before that of the histories.
    await world.database.write('UPDATE subscription SET created_at = 1');
    return world;
  }

  async close(): Promise<void> {
    performance.now = this.performanceNow;
    for (const source of Object.values(this.sources)) await source.destroy();
    await this.proxy.close();
    await this.server.stop();
  }

  /** Empties the tables, applies these settings to the queues, and starts new brokers. */
  async reset(queues: Readonly<Record<string, Settings>>): Promise<void> {
    await this.endTransaction('rollback');
    await this.database.idle();
    this.now = START;
    this.steps = 0;
    this.brokers = BROKERS.map(() => this.startBroker());
    await this.database.transaction(async (tx) =>
      tx.finish([
        { sql: 'DELETE FROM delivery' },
        { sql: 'DELETE FROM pack' },
        { sql: 'DELETE FROM deduplication' },
        { sql: 'DELETE FROM withdrawn' },
        { sql: 'DELETE FROM job' },
        ...Object.entries(queues).map(([name, settings]) => ({
          sql: `UPDATE queue
                SET paused = 0, delay_seconds = ?, message_ttl_seconds = ?, max_receives = ?, max_depth = ?,
                    dead_letter_queue_id = ?, dead_letter_expired = ?
                WHERE id = ?`,
          values: [
            settings.delaySeconds,
            settings.messageTtlSeconds,
            settings.maxReceives,
            settings.maxDepth,
            this.ids.get(settings.deadLetterQueue ?? '') ?? null,
            Number(settings.deadLetterExpired ?? false),
            this.ids.get(name),
          ],
        })),
      ]),
    );
  }

  startBroker(): Broker {
    const queues = new QueueRepository(this.database);
    const batches = new MessageRepository(this.database, undefined, queues);
    return { batches, queues, jobs: new JobRepository(this.database) };
  }

  get unleased(): UnleasedRepository {
    return new UnleasedRepository(this.database);
  }

  get settled(): SettledRepository {
    return new SettledRepository(this.database);
  }

  /** Runs a duty of the reaper. Returns how many deliveries it handled. */
  async reap(duty: 'expire' | 'deadLetter'): Promise<number> {
    const { batches, queues } = this.startBroker();
    const Duty = duty === 'expire' ? ExpireDeliveries : DeadLetterDeliveries;
    return new Duty(queues, this.unleased, batches, new MinuteRepository(this.database)).run({
      signal: new AbortController().signal,
    });
  }

  /**
   * Runs `work` and cuts the connection at its first COMMIT. Resolves when the server has noticed.
   * `wasCut` is false if `work` sent no COMMIT.
   */
  async cutting<T>(cut: Cut | null, work: () => Promise<T>): Promise<{ result: T; wasCut: boolean }> {
    if (cut === null) return { result: await work(), wasCut: false };
    const before = this.proxy.cuts();
    this.proxy.cutAt(commits, cut);
    this.isCutting = true;
    try {
      const result = await work();
      await this.database.idle();
      return { result, wasCut: this.proxy.cuts() > before };
    } finally {
      this.isCutting = false;
      this.proxy.cutAt('', cut, 0);
      await this.noticed();
    }
  }

  /** Looks up a queue's name by id. */
  nameOf(queueId: number): string {
    return [...this.ids].find(([, id]) => id === queueId)?.[0] ?? `queue ${queueId}`;
  }

  /** Numbers of messages by queue, under the queues' names. */
  named(byId: ReadonlyMap<number, number>): Map<string, number> {
    return new Map([...byId].map(([queueId, messages]) => [this.nameOf(queueId), messages]));
  }

  /**
   * Reads the deliveries in rows of `delivery`, by `keyOf`: those of these messages or all. Throws
   * if two rows owe the same copy of a message.
   */
  async stored(ids?: readonly string[]): Promise<Map<string, StoredDelivery>> {
    if (ids?.length === 0) return new Map();
    const packs = ids?.map((id) => packIdOf(Buffer.from(id, 'hex')));
    const rows = await this.database.read<StoredRow>(
      `SELECT pack_id AS packId, part, members, queue_id AS queueId, 9 - priority_rank AS priority, receive_count AS receiveCount,
              available_at AS availableAt, expires_at AS expiresAt, producer_expires_at AS producerExpiresAt,
              LOWER(HEX(NULLIF(lease_token, x'0000000000000000'))) AS token
       FROM delivery ${packs === undefined ? '' : 'WHERE pack_id IN (?)'}`,
      packs === undefined ? [] : [packs],
    );
    const stored = new Map<string, StoredDelivery>();
    for (const { packId, part, members, queueId, ...row } of rows) {
      for (let index = 0; index < 32; index += 1) {
        if (((members >>> index) & 1) === 0) continue;
        const id = messageIdIn(packId, index).toString('hex');
        const key = keyOf({ id, copy: Math.floor(part / PACK_MESSAGES) });
        if (stored.has(key)) throw new Error(`Two rows owe message ${key}.`);
        stored.set(key, { queue: this.nameOf(queueId), ...row });
      }
    }
    return stored;
  }

  async countMessages(): Promise<number> {
    const [row] = await this.database.read<{ n: number | string | null }>('SELECT SUM(count) AS n FROM pack');
    return Number(row?.n);
  }

  /**
   * Begins a service's transaction and enqueues in it. Returns the messages' ids, or the refusal's
   * code.
   */
  async beginTransaction(queue: string, messages: EnqueueRequest['messages']): Promise<string[] | string> {
    const transaction = this.sources.service.createQueryRunner();
    this.transaction = transaction;
    await transaction.connect();
    await transaction.query(this.clock.statement);
    await transaction.startTransaction();
    try {
      const ids = await enqueue(transaction.manager, queue, messages);
      return ids.map((id) => parseMessageId(id).toString('hex'));
    } catch (error) {
      await this.endTransaction('rollback');
      if (error instanceof RowmqError) return error.code;
      throw error;
    }
  }

  /** Waits until a statement waits for a lock, as long as that makes sense. */
  async blocked(): Promise<void> {
    for (const until = Date.now() + BLOCKED_WITHIN_MS; Date.now() < until;) {
      const [waits] = await this.database.read<{ Value: string }>(
        `SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'`,
      );
      if (Number(waits?.Value) > 0) return;
      await sleep(1);
    }
  }

  async endTransaction(how: 'commit' | 'rollback'): Promise<void> {
    const { transaction } = this;
    this.transaction = undefined;
    if (transaction === undefined) return;
    await (how === 'commit' ? transaction.commitTransaction() : transaction.rollbackTransaction());
    await transaction.release();
  }

  /**
   * Waits until the server has ended the transactions of cut connections. Until then other sessions
   * skip the rows that they lock.
   */
  private async noticed(): Promise<void> {
    for (let tries = 0; this.lost.length > 0; tries += 1) {
      if (tries > TRIES_UNTIL_NOTICED) throw new Error('The server did not notice that a connection was cut.');
      if (tries > 0) await sleep(10);
      const sessions = await this.database.read<{ Id: number }>('SHOW PROCESSLIST');
      if (!sessions.some(({ Id }) => this.lost.includes(Number(Id)))) this.lost.length = 0;
    }
  }
}

/** Tracks its pending work, because a claim continues in the background after its answer. */
class TrackedDatabase extends Database {
  private readonly running = new Set<Promise<unknown>>();

  override async transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return this.track(super.transaction(work));
  }

  override async read<T = Row>(sql: string, values?: readonly unknown[]): Promise<T[]> {
    return this.track(super.read<T>(sql, values));
  }

  override async write(sql: string, values?: readonly unknown[]): Promise<WriteResult> {
    return this.track(super.write(sql, values));
  }

  /** Resolves when no work is pending. */
  async idle(): Promise<void> {
    while (this.running.size > 0) {
      await Promise.allSettled(this.running);
      // Code that waited for this work may start more.
      await turn();
    }
  }

  private async track<T>(work: Promise<T>): Promise<T> {
    this.running.add(work);
    try {
      return await work;
    } finally {
      this.running.delete(work);
    }
  }
}

interface OwnServer {
  url: string;
  stop(): Promise<void>;
}

/**
 * Starts a server with its files in memory if there is room. No test here needs durability, and on
 * a disk every commit would wait for it.
 */
async function startOwnServer(): Promise<OwnServer> {
  const program = await serverProgram();
  const memory = await statfs('/dev/shm').catch(() => undefined);
  const hasRoom = memory !== undefined && memory.bavail * memory.bsize > ROOM_BYTES;
  const parent = hasRoom ? '/dev/shm' : tmpdir();
  for (const folder of await endLeftOver(parent, FOLDER)) await rm(folder, { recursive: true, force: true });
  const dataDir = join(parent, `${FOLDER}-${process.pid}`);
  await copyFreshData(program, dataDir);
  const server = await EmbeddedServer.start({ program, dataDir, bufferPoolMegabytes: 128 });
  const killServer = () => void server.kill();
  process.once('exit', killServer);
  await migrateDatabase(server.url);
  return {
    url: server.url,
    stop: async () => {
      process.off('exit', killServer);
      await server.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}
