import { Queue, QueueConsumer, RowmqHttpClient } from '@rowmq/client/core';
import type { PeerClient, PeerQueue, Plan } from '../client.js';
import { serve } from '../serve.js';

interface Payload {
  body: string;
}

/** RowMQ as services use it: callers share a queue object, and a consumer has many handlers. */
class RowmqClientPeer implements PeerClient {
  private client!: RowmqHttpClient;

  async connect(address: string): Promise<void> {
    this.client = new RowmqHttpClient({ url: address });
    return Promise.resolve();
  }

  async openQueue(plan: Plan): Promise<PeerQueue> {
    const { client } = this;
    await client.putQueue(plan.queue, {});
    const queue = new Queue<Payload>(client, plan.queue);
    let consumer: QueueConsumer<Payload> | undefined;
    return {
      enqueue: async (bodies) => {
        await Promise.all(bodies.map(async (body) => queue.enqueue({ body })));
      },
      consume: async (sink) => {
        // The consumer acks a message after its handler, and does not report that.
        const message = ({ body }: Payload): void => {
          sink.received(body);
          sink.completed(1);
        };
        consumer = new QueueConsumer(client, plan.queue, { message }, { concurrency: plan.consumers });
        consumer.on('handlerFailed', (_, error) => sink.failed(error));
        consumer.on('settleFailed', (error) => sink.failed(error));
        consumer.on('leaseLost', ({ id }) => sink.failed(new Error(`the lease of ${id} was lost`)));
        consumer.start();
        return Promise.resolve();
      },
      remaining: async () => {
        const { stats } = await client.getQueue(plan.queue);
        return stats.ready + stats.delayed + stats.leased;
      },
      close: async () => consumer?.stop(),
    };
  }

  async close(): Promise<void> {
    await this.client.close();
  }
}

/** Entry of the client's process. */
export function main(): void {
  serve(new RowmqClientPeer());
}
