import { setTimeout as sleep } from 'node:timers/promises';
import { newPackId, RowmqError } from '@rowmq/contract';
import { FIRST_ID, isLockWaitTimeout, type Queue } from '@rowmq/store';
import { countErrors } from '../../support/statements.js';
import { storeLonely } from '../../support/packs.js';
import { openStore, type TestStore } from '../../support/store.js';
import { BROKER_STATEMENTS } from './broker-statements.js';
import { Meetings, ObservedDatabase } from './meetings.js';
import { REAPER_STATEMENTS } from './reaper-statements.js';
import { LAST_ID, oneOf, Scene, SETTINGS, type Statements } from './scene.js';

const STATEMENTS: Record<string, Statements> = { ...BROKER_STATEMENTS, ...REAPER_STATEMENTS };

/** Together these are 68 connections. */
const BROKERS = { count: 4, workers: 12, poolSize: 13, kinds: Object.keys(BROKER_STATEMENTS) };
const REAPERS = { count: 2, workers: 4, poolSize: 4, kinds: Object.keys(REAPER_STATEMENTS) };
/** A reaper's connections for partitions. Their clock is that of the messages' ids. */
const PARTITIONS_POOL_SIZE = 4;
export const CONNECTIONS = BROKERS.count * BROKERS.poolSize + REAPERS.count * (REAPERS.poolSize + PARTITIONS_POOL_SIZE);

/** While some pairs have not met, this share of the choices aims at them. */
const SHARE_FOR_MISSING = 0.8;
/** More packs than a split of their partition copies. */
const FIRST_PACKS = 12_000;
const FIRST_LIFE_MS = 10_000;
const DRAIN_DEADLINE_MS = 60_000;
/** Minutes of a queue's past, which reapers remove while brokers count the present. */
const OLD_MINUTES = 20_000;

/** Brokers and reapers whose workers run random operations on three queues. */
export class Stress {
  readonly meetings = new Meetings(Object.keys(STATEMENTS), new Set(['browse']));
  readonly scene = new Scene(this.meetings);
  readonly carriedOut = new Map(Object.keys(STATEMENTS).map((kind) => [kind, 0]));
  /** By kind, the operations that ended with a correct refusal or yielded. */
  readonly refused = new Map<string, number>();
  /** The database's errors by number, including those that were retried. */
  readonly errors = new Map<number | string, number>();
  private readonly brokers: TestStore[] = [];
  private readonly reapers: TestStore[] = [];
  private failure: unknown;

  /** Expects a database with RowMQ's schema and no data. */
  static async open(url: string): Promise<Stress> {
    const stress = new Stress();
    while (stress.brokers.length < BROKERS.count) stress.brokers.push(await stress.openStore(url, BROKERS.poolSize));
    while (stress.reapers.length < REAPERS.count) stress.reapers.push(await stress.openReaper(url));
    await stress.prepare(stress.brokers[0] as TestStore);
    return stress;
  }

  /** The number of completed operations. */
  get operations(): number {
    return [...this.carriedOut.values()].reduce((sum, count) => sum + count, 0);
  }

  /**
   * Statements that were abandoned at their deadline. Such a statement may have run and committed
   * without a report of its count.
   */
  get givenUp(): number {
    return this.errors.get('PROTOCOL_SEQUENCE_TIMEOUT') ?? 0;
  }

  async close(): Promise<void> {
    for (const store of [...this.reapers, ...this.brokers]) await store.close();
  }

  /** Runs all workers until `isOver`. Throws the first unexpected error. */
  async run(isOver: () => boolean): Promise<void> {
    const ends = (): boolean => this.failure !== undefined || isOver();
    const workers = [
      ...this.brokers.map((store) => ({ ...BROKERS, store })),
      ...this.reapers.map((store) => ({ ...REAPERS, store })),
    ].flatMap(({ store, workers: count, kinds }) => Array.from({ length: count }, () => this.work(store, kinds, ends)));
    await Promise.all(workers);
    if (this.failure !== undefined) throw this.failure;
  }

  /**
   * Dequeues and acks, or removes, all remaining messages. Returns how many the database still
   * owes. Any that remain are unreachable.
   */
  async drain(): Promise<number> {
    const [store] = this.brokers as [TestStore];
    // Stops further dead-lettering.
    for (const name of this.scene.queues) await store.queues.put(name, SETTINGS);
    const until = performance.now() + DRAIN_DEADLINE_MS;
    for (;;) {
      for (const id of await store.queues.deletedIds()) await this.purge(store, id);
      for (const name of this.scene.queues) await this.drainQueue(store, await store.queues.getFresh(name));
      const [row] = await store.database.read<{ n: number | string | null }>(
        'SELECT SUM(BIT_COUNT(members)) AS n FROM delivery',
      );
      const left = Number(row?.n ?? 0);
      if (left === 0 || performance.now() > until) return left;
      await sleep(100);
    }
  }

  private async work(store: TestStore, kinds: readonly string[], isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      const kind = this.choose(kinds);
      const statements = STATEMENTS[kind] as Statements;
      try {
        const plan = await statements.plan(this.scene, store);
        if (plan === undefined) {
          await sleep(1 + Math.random() * 5);
        } else {
          await this.meetings.carryOut({ kind, queues: plan.queues }, () => plan.carryOut());
          this.carriedOut.set(kind, (this.carriedOut.get(kind) ?? 0) + 1);
        }
      } catch (error) {
        if (this.isExpected(statements, error)) this.refused.set(kind, (this.refused.get(kind) ?? 0) + 1);
        else this.failure ??= new Error(`${kind} failed`, { cause: error });
      }
    }
  }

  private choose(kinds: readonly string[]): string {
    const { missing } = this.meetings;
    if (missing.length > 0 && Math.random() < SHARE_FOR_MISSING) {
      const wanted = oneOf(missing).filter((kind) => kinds.includes(kind));
      if (wanted.length > 0) return oneOf(wanted);
    }
    const weight = (kind: string): number => STATEMENTS[kind]?.weight ?? 0;
    let rest = Math.random() * kinds.reduce((sum, kind) => sum + weight(kind), 0);
    return kinds.find((kind) => (rest -= weight(kind)) < 0) ?? oneOf(kinds);
  }

  /**
   * A refusal, or a lock wait that timed out in every attempt because the machine is too slow for
   * this load.
   */
  private isExpected({ refusals = [], givesWay = false }: Statements, error: unknown): boolean {
    if (!(error instanceof RowmqError)) return givesWay && isLockWaitTimeout(error);
    return refusals.includes(error.code) || isLockWaitTimeout(error.cause);
  }

  private async openReaper(url: string): Promise<TestStore> {
    const store = await this.openStore(url, REAPERS.poolSize);
    const stamped = await this.openStore(url, PARTITIONS_POOL_SIZE, () => Math.floor(this.scene.stampedNow));
    const close = async (): Promise<void> => {
      await stamped.close();
      await store.close();
    };
    return { ...store, partitions: stamped.partitions, close };
  }

  private async openStore(url: string, poolSize: number, clock?: () => number | undefined): Promise<TestStore> {
    const store = await openStore({
      on: url,
      poolSize,
      ...(clock && { clock }),
      idClock: () => this.scene.stamp(),
      databaseOf: (source) => new ObservedDatabase(source, this.meetings),
      observer: {
        removedInClaim: (event, _queueName, count) => {
          if (event === 'expired') this.scene.account.expired += count;
        },
        rescanned: () => undefined,
      },
    });
    countErrors(store.database, this.errors);
    return store;
  }

  /**
   * Creates the queues and fills the catch-all partition, as after a long time without a reaper.
   */
  private async prepare({ queues, topics, database }: TestStore): Promise<void> {
    const { scene } = this;
    const [one, other] = scene.lasting;
    for (const name of scene.queues) await queues.put(name, SETTINGS);
    await queues.put(one, { deadLetterQueue: other, maxReceives: 3 });
    // A broker refuses the way back. It makes moves in both directions meet.
    await database.write(
      `UPDATE queue AS q JOIN queue AS dead SET q.dead_letter_queue_id = dead.id, q.max_receives = 3
       WHERE q.name = ? AND dead.name = ?`,
      [other, one],
    );
    for (const topic of scene.topics) {
      await topics.put(topic);
      for (const queue of scene.queues) await topics.putSubscription(topic, queue, null);
    }
    scene.isThere = true;
    const queueId = (await queues.getFresh(one)).id;
    const lastMinute = Math.floor(Date.now() / 60_000) - 1;
    for (let written = 0; written < OLD_MINUTES; written += 1000) {
      const rows = Array.from({ length: 1000 }, (_, index) => `(${lastMinute - written - index}, ${queueId})`);
      await database.write(`INSERT INTO queue_minute (minute, queue_id) VALUES ${rows.join(',')}`);
    }
    while (scene.account.stored < FIRST_PACKS) {
      const now = Date.now();
      const packs = Array.from({ length: 1000 }, () => ({
        packId: newPackId(scene.stamp()),
        queueId,
        body: 'first',
        availableAt: now,
        expiresAt: now + FIRST_LIFE_MS,
      }));
      for (const { sql, values } of storeLonely(packs)) await database.write(sql, values);
      scene.account.stored += packs.length;
    }
  }

  private async drainQueue({ unleased, messages }: TestStore, queue: Queue): Promise<void> {
    const { account } = this.scene;
    const { found } = await unleased.findExpired(queue.id, FIRST_ID, 1000);
    const expired = await messages.expire(queue.id, found);
    account.expired += expired;
    for (;;) {
      const begunAt = performance.now();
      const leased = await messages.dequeue(queue, { maxMessages: 200, leaseSeconds: 60 });
      if (leased.length === 0) return;
      account.recordLeased(leased, begunAt);
      account.recordAcks(leased, await messages.ack(queue.id, leased));
    }
  }

  private async purge({ unleased }: TestStore, queueId: number): Promise<void> {
    const { purged } = await unleased.purge(queueId, FIRST_ID, LAST_ID, 500);
    this.scene.account.purged += purged;
  }
}
