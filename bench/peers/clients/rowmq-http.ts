import { RowmqHttpClient } from '@rowmq/client/core';
import { Balancer, QueueClient } from '../../harness/queue-client.js';
import { type PeerClient, type PeerQueue, type Plan, PullConsumers, type Sink } from '../client.js';
import { serve } from '../serve.js';

/** Consumers wait in the broker, so nobody asks an empty queue in vain. */
const WAIT_SECONDS = 20;

/**
 * RowMQ's REST API over the connections of the other benchmarks, which cost the least CPU. Requests
 * go to the brokers in turn.
 */
class RowmqHttpPeer implements PeerClient {
  private balancer!: Balancer;
  private admin!: RowmqHttpClient;

  async connect(address: string): Promise<void> {
    const urls = address.split(',');
    this.balancer = new Balancer(urls);
    this.admin = new RowmqHttpClient({ url: urls });
    return Promise.resolve();
  }

  async openQueue(plan: Plan): Promise<PeerQueue> {
    await this.admin.putQueue(plan.queue, {});
    const openOne = async (): Promise<QueueClient> => QueueClient.open(this.balancer, plan.queue);
    const open = async (count: number): Promise<QueueClient[]> => Promise.all(Array.from({ length: count }, openOne));
    const idleProducers = await open(plan.producers);
    const consuming = await open(plan.consumers);
    let consumers: PullConsumers | undefined;
    return {
      enqueue: async (bodies) => {
        const client = idleProducers.pop() ?? (await openOne());
        await client.enqueue(JSON.stringify({ messages: bodies.map((body) => ({ body })) }));
        idleProducers.push(client);
      },
      consume: async (sink) => {
        consumers = new PullConsumers(plan.consumers, sink, async (consumer) =>
          dequeueAndAck(consuming[consumer] as QueueClient, plan.batch, sink),
        );
        return Promise.resolve();
      },
      remaining: async () => {
        const { stats } = await this.admin.getQueue(plan.queue);
        return stats.ready + stats.delayed + stats.leased;
      },
      close: async () => {
        const stopped = consumers?.stop();
        // Ends the long polls that are still waiting.
        for (const client of [...idleProducers, ...consuming]) client.close();
        await stopped;
      },
    };
  }

  async close(): Promise<void> {
    await this.admin.close();
  }
}

async function dequeueAndAck(client: QueueClient, maxMessages: number, sink: Sink): Promise<number> {
  const messages = await client.dequeue({ maxMessages, waitSeconds: WAIT_SECONDS });
  if (messages.length === 0) return 0;
  for (const { body } of messages) sink.received(body);
  await client.ack(messages);
  return messages.length;
}

/** Entry of the client's process. */
export function main(): void {
  serve(new RowmqHttpPeer());
}
