import { newPackId, type Receipt } from '@rowmq/contract';
import pLimit, { type LimitFunction } from 'p-limit';
import {
  BrowseRepository,
  Database,
  type Demand,
  type EnqueuedMessage,
  type LeasedMessage,
  MessageRepository,
  MinuteRepository,
  type NewMessage,
  openDataSource,
  PartitionRepository,
  type Queue,
  QueueRepository,
  ReaperRepository,
  type Published,
  type ReceiptOutcomes,
  type StoreObserver,
  TopicRepository,
  UnleasedRepository,
} from '@rowmq/store';
import type { DataSource } from 'typeorm';
import { SessionClock } from './clock.js';
import { createMigratedDatabase } from './processes.js';
import type { TestDatabase } from './servers.js';
import { claimFrom } from './claim-from.js';

/** The repositories on a database of their own. */
export interface TestStore {
  url: string;
  database: Database;
  messages: SingleMessages;
  queues: QueueRepository;
  topics: TopicRepository;
  unleased: UnleasedRepository;
  browse: BrowseRepository;
  minutes: MinuteRepository;
  partitions: PartitionRepository;
  reaper: ReaperRepository;
  /**
   * Moves the clock of its sessions to this instant, in ms since 1970, and stops it there.
   * Undefined: the real time. New ids get the same time, or another one, as from a broker with a
   * wrong clock.
   */
  at(instant: number | undefined, idTime?: number): TestStore;
  close(): Promise<void>;
}

/**
 * The message repository for one client at a time. Every request is a batch of its own, and a
 * refusal is thrown. As in a broker, one claim of a queue runs at a time, and a claim that must
 * read again does so.
 */
export class SingleMessages {
  readonly expire: MessageRepository['expire'];
  readonly deadLetter: MessageRepository['deadLetter'];
  private readonly turns = new Map<number, LimitFunction>();

  constructor(
    readonly batches: MessageRepository,
    private readonly queues?: QueueRepository,
  ) {
    this.expire = batches.expire.bind(batches);
    this.deadLetter = batches.deadLetter.bind(batches);
  }

  /** Returns the ids of the messages. */
  async enqueue(queueName: string, messages: readonly NewMessage[]): Promise<Buffer[]> {
    const hasGroups = messages.some(({ groupId }) => groupId !== undefined);
    const isOrdered = hasGroups && (await this.queues?.get(queueName))?.ordering === 'group';
    const requests = [{ queueName, messages }];
    const [outcome] = await (isOrdered ? this.batches.enqueueInOrder(requests) : this.batches.enqueue(requests));
    if (outcome instanceof Error) throw outcome;
    return (outcome as EnqueuedMessage[]).map(({ id }) => id);
  }

  /** The headers of a message decide which subscriptions want it. */
  async publish(topicName: string, messages: readonly NewMessage[]): Promise<Published[]> {
    const withValues = messages.map((one) => ({
      ...one,
      values: JSON.parse(one.headers?.toString() ?? '{}') as Record<string, string>,
    }));
    const [outcome] = await this.batches.publish([{ topicName, messages: withValues }]);
    if (outcome instanceof Error) throw outcome;
    return outcome as Published[];
  }

  async dequeue(queue: Queue, demand: Demand): Promise<LeasedMessage[]> {
    const turn = this.turns.get(queue.id) ?? pLimit(1);
    this.turns.set(queue.id, turn);
    return turn(async () => {
      for (let look = 0; look < 5; look += 1) {
        const outcome = await claimFrom(this.batches, queue, [demand]);
        const leased = outcome.leased[0] ?? [];
        if (leased.length > 0 || !(await outcome.claimAgain)) return leased;
      }
      return [];
    });
  }

  /** A dequeue with followers, as SQS receives from an ordered queue. */
  async receive(queue: Queue, demand: Demand): Promise<LeasedMessage[]> {
    const leased = await this.dequeue(queue, demand);
    return [...leased, ...(await this.batches.follow(queue, leased, demand.maxMessages - leased.length))];
  }

  async extend(
    queueId: number,
    receipts: readonly Receipt[],
    { leaseSeconds }: { leaseSeconds: number },
  ): Promise<{ outcomes: ReceiptOutcomes; leaseExpiresAt: number }> {
    return first(await this.batches.extend([{ queueId, receipts, leaseSeconds }]));
  }

  async nack(
    queueId: number,
    receipts: readonly Receipt[],
    { delaySeconds, reason }: { delaySeconds: number; reason?: string },
  ): Promise<ReceiptOutcomes> {
    return first(await this.batches.nack([{ queueId, receipts, delaySeconds, reason }]));
  }

  async release(queueId: number, receipts: readonly Receipt[]): Promise<ReceiptOutcomes> {
    return first(await this.batches.release([{ queueId, receipts }]));
  }

  async ack(queueId: number, receipts: readonly Receipt[]): Promise<ReceiptOutcomes> {
    return first(await this.batches.ack([{ queueId, receipts }]));
  }

  async ackInOrder(queueId: number, receipts: readonly Receipt[]): Promise<ReceiptOutcomes> {
    return first(await this.batches.ackInOrder([{ queueId, receipts }]));
  }
}

function first<T>([one]: readonly T[]): T {
  return one as T;
}

/** Opens the repositories on a fresh database, or like a further broker on an existing one. */
export async function openStore({
  poolSize = 8,
  on,
  databaseOf = (source) => new Database(source),
  observer,
  clock = () => undefined,
  idClock = clock,
}: {
  poolSize?: number;
  on?: string;
  databaseOf?: (source: DataSource) => Database;
  observer?: StoreObserver;
  /**
   * The clock of its sessions, in ms since 1970, until {@link TestStore.at} moves it. Undefined:
   * the real time.
   */
  clock?: () => number | undefined;
  /** The time of the ids that it makes. Default: `clock`. */
  idClock?: () => number | undefined;
} = {}): Promise<TestStore> {
  const own: TestDatabase | undefined = on === undefined ? await createMigratedDatabase() : undefined;
  const url = on ?? (own as TestDatabase).url;
  const dataSource = await openDataSource({ url, poolSize });
  let now = clock;
  let idTime = idClock;
  new SessionClock(() => now()).drive(dataSource);
  const database = databaseOf(dataSource);
  const queues = new QueueRepository(database);
  const store: TestStore = {
    url,
    database,
    // Ids follow the clock that the test moves.
    messages: new SingleMessages(new MessageRepository(database, observer, queues, () => newPackId(idTime())), queues),
    queues,
    topics: new TopicRepository(database),
    unleased: new UnleasedRepository(database),
    browse: new BrowseRepository(database),
    minutes: new MinuteRepository(database),
    partitions: new PartitionRepository(database),
    reaper: new ReaperRepository(database),
    at: (instant, ofIds = instant) => {
      now = () => instant;
      idTime = () => ofIds;
      return store;
    },
    close: async () => {
      await dataSource.destroy();
      await own?.drop();
    },
  };
  return store;
}

let queueNumber = 0;

/** A queue with a name of its own. */
export async function createQueue(
  store: TestStore,
  settings: Parameters<QueueRepository['put']>[1] = {},
): Promise<Queue> {
  queueNumber += 1;
  return (await store.queues.put(`queue-${process.pid}-${queueNumber}`, settings)).queue;
}

/** No column can hold this priority, so the database refuses the message. */
export const NO_PRIORITY = -300;

/** A message with defaults for every field that a test does not name. */
export function message(overrides: Partial<NewMessage> = {}): NewMessage {
  return { body: Buffer.from('body'), headers: null, priority: 4, ...overrides };
}

/** Several messages, whose bodies are their numbers. */
export function numbered(count: number, overrides: Partial<NewMessage> = {}): NewMessage[] {
  return Array.from({ length: count }, (_, index) => message({ body: Buffer.from(String(index)), ...overrides }));
}

/** Bodies as text. */
export function bodies(deliveries: readonly { body: Buffer }[]): string[] {
  return deliveries.map(({ body }) => body.toString());
}
