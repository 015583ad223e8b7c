import { setTimeout as sleep } from 'node:timers/promises';
import { Database, MessageRepository, openDataSource, type Queue, QueueRepository } from '@rowmq/store';
import { type PeerQueue, type PeerClient, type Plan, PullConsumers, type Sink } from '../client.js';
import { serve } from '../serve.js';

const PRIORITY = 4;
const LEASE_SECONDS = 30;
const EMPTY_PAUSE_MS = 2;

/**
 * RowMQ's repository without broker and HTTP: an in-process queue library, as the PostgreSQL peers
 * are.
 */
class RowmqRepositoryClient implements PeerClient {
  private database!: Database;
  private queues!: QueueRepository;
  private messages!: MessageRepository;

  async connect(address: string, options: { poolSize: number }): Promise<void> {
    this.database = new Database(await openDataSource({ url: address, poolSize: options.poolSize }));
    this.queues = new QueueRepository(this.database);
    this.messages = new MessageRepository(this.database);
  }

  async openQueue(plan: Plan): Promise<PeerQueue> {
    const { queue } = await this.queues.put(plan.queue, {});
    let consumers: PullConsumers | undefined;
    return {
      enqueue: async (bodies) => {
        const messages = bodies.map((body) => ({ body: Buffer.from(body), headers: null, priority: PRIORITY }));
        const [outcome] = await this.messages.enqueue([{ queueName: queue.name, messages }]);
        if (outcome instanceof Error) throw outcome;
      },
      consume: async (sink) => {
        consumers = new PullConsumers(plan.consumers, sink, async () => this.dequeueAndAck(queue, plan.batch, sink));
        return Promise.resolve();
      },
      remaining: async () => {
        const sql = 'SELECT SUM(BIT_COUNT(members)) AS count FROM delivery WHERE queue_id = ?';
        const [row] = await this.database.read<{ count: number | string | null }>(sql, [queue.id]);
        return Number(row?.count ?? 0);
      },
      close: async () => consumers?.stop(),
    };
  }

  private async dequeueAndAck(queue: Queue, maxMessages: number, sink: Sink): Promise<number> {
    const demands = [{ maxMessages, leaseSeconds: LEASE_SECONDS }];
    const [outcome] = await this.messages.claim([{ queue, demands }]);
    const leased = outcome?.leased ?? [];
    const receipts = leased.flat();
    if (receipts.length === 0) {
      await sleep(EMPTY_PAUSE_MS);
      return 0;
    }
    for (const { body } of receipts) sink.received(body.toString('latin1'));
    const [outcomes = []] = await this.messages.ack([{ queueId: queue.id, receipts }]);
    return outcomes.filter((one) => one === null).length;
  }

  async close(): Promise<void> {
    await this.database.dataSource.destroy();
  }
}

/** Entry of the client's process. */
export function main(): void {
  serve(new RowmqRepositoryClient());
}
