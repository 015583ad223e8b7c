import { newMessageId } from '@rowmq/contract';
import {
  BrowseRepository,
  Database,
  MessageRepository,
  type NewMessage,
  openDataSource,
  PartitionRepository,
  type Queue,
  QueueRepository,
  ReaperRepository,
  SweepRepository,
} from '@rowmq/store';
import { createMigratedDatabase } from './processes.js';
import type { TestDatabase } from './servers.js';

/** The repositories on a database of their own. */
export interface TestStore {
  url: string;
  database: Database;
  messages: MessageRepository;
  queues: QueueRepository;
  sweep: SweepRepository;
  browse: BrowseRepository;
  partitions: PartitionRepository;
  reaper: ReaperRepository;
  close(): Promise<void>;
}

/** Opens the repositories on a fresh database, or as a further broker would on one that is there. */
export async function openStore({ poolSize = 8, on }: { poolSize?: number; on?: string } = {}): Promise<TestStore> {
  const own: TestDatabase | undefined = on === undefined ? await createMigratedDatabase() : undefined;
  const url = on ?? (own as TestDatabase).url;
  const dataSource = await openDataSource({ url, poolSize });
  const database = new Database(dataSource);
  return {
    url,
    database,
    messages: new MessageRepository(database),
    queues: new QueueRepository(database),
    sweep: new SweepRepository(database),
    browse: new BrowseRepository(database),
    partitions: new PartitionRepository(database),
    reaper: new ReaperRepository(database),
    close: async () => {
      await dataSource.destroy();
      await own?.drop();
    },
  };
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

/** A message with defaults for whatever a test does not care about. */
export function message(overrides: Partial<NewMessage> = {}): NewMessage {
  return { id: newMessageId(), body: Buffer.from('body'), headers: null, priority: 4, ...overrides };
}

/** Several of them, whose bodies are their numbers. */
export function numbered(count: number, overrides: Partial<NewMessage> = {}): NewMessage[] {
  return Array.from({ length: count }, (_, index) => message({ body: Buffer.from(String(index)), ...overrides }));
}

/** Bodies as text. */
export function bodies(deliveries: readonly { body: Buffer }[]): string[] {
  return deliveries.map(({ body }) => body.toString());
}
