import type { PeerQueue, PeerClient, Plan, Sink } from '../client.js';
import { serve } from '../serve.js';
import { peerPackage } from './peer-package.js';

interface Delivery {
  content: Buffer;
}

/**
 * The part of amqplib that the benchmark uses: https://amqp-node.github.io/amqplib/channel_api.html
 */
interface Channel {
  assertQueue(queue: string, options: { durable: boolean; arguments: Record<string, string> }): Promise<unknown>;
  checkQueue(queue: string): Promise<{ messageCount: number }>;
  deleteQueue(queue: string): Promise<unknown>;
  prefetch(count: number): Promise<unknown>;
  consume(queue: string, onMessage: (message: Delivery | null) => void): Promise<unknown>;
  ack(message: Delivery, allUpTo: boolean): void;
  close(): Promise<void>;
}

interface ConfirmChannel extends Channel {
  sendToQueue(
    queue: string,
    content: Buffer,
    options: { persistent: boolean },
    confirmed?: (error: Error | null) => void,
  ): boolean;
  waitForConfirms(): Promise<void>;
}

interface Connection {
  on(event: 'error', listener: (error: Error) => void): void;
  createChannel(): Promise<Channel>;
  createConfirmChannel(): Promise<ConfirmChannel>;
  close(): Promise<void>;
}

/**
 * Set up as its documentation advises for throughput. Producers send many publishes between waits
 * for confirms. Consumers acknowledge several deliveries at once and prefetch 100 or more
 * (https://www.rabbitmq.com/docs/confirms). Publishing and consuming have connections of their own
 * (https://www.rabbitmq.com/docs/alarms).
 */
class RabbitMqClient implements PeerClient {
  private publishing!: Connection;
  private consuming!: Connection;

  async connect(address: string): Promise<void> {
    const { connect } = peerPackage('amqplib') as { connect: (url: string) => Promise<Connection> };
    this.publishing = await connect(address);
    this.consuming = await connect(address);
    for (const connection of [this.publishing, this.consuming]) {
      // Without a listener, it would end the process before anybody learns the reason.
      connection.on('error', (error) => console.error(error));
    }
  }

  async openQueue(plan: Plan): Promise<PeerQueue> {
    const { queue } = plan;
    const admin = await this.consuming.createChannel();
    await admin.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
    // As used, callers share a channel, and so do handlers.
    const asUsed = plan.kind === 'used';
    const idle: ConfirmChannel[] = [];
    for (let producer = 0; producer < (asUsed ? 1 : plan.producers); producer += 1) {
      idle.push(await this.publishing.createConfirmChannel());
    }
    const consumers: Channel[] = [];
    return {
      enqueue: async (bodies) => {
        if (asUsed) return publish(idle[0] as ConfirmChannel, queue, bodies);
        const channel = idle.pop() ?? (await this.publishing.createConfirmChannel());
        await publish(channel, queue, bodies);
        idle.push(channel);
      },
      consume: async (sink) => {
        for (let consumer = 0; consumer < (asUsed ? 1 : plan.consumers); consumer += 1) {
          const channel = await this.consuming.createChannel();
          await channel.prefetch(asUsed ? plan.consumers : plan.batch);
          consumers.push(channel);
          await channel.consume(queue, acknowledge(channel, asUsed ? 1 : plan.batch, sink));
        }
      },
      remaining: async () => (await admin.checkQueue(queue)).messageCount,
      close: async () => {
        // Deliveries that a channel has not acknowledged return to the queue when it closes.
        for (const channel of [...consumers, ...idle]) await channel.close();
        const { messageCount } = await admin.checkQueue(queue);
        if (messageCount > 0) throw new Error(`${messageCount} messages were not acknowledged`);
        await admin.deleteQueue(queue);
        await admin.close();
      },
    };
  }

  async close(): Promise<void> {
    await this.publishing.close();
    await this.consuming.close();
  }
}

async function publish(channel: ConfirmChannel, queue: string, bodies: string[]): Promise<void> {
  const [only] = bodies;
  if (bodies.length === 1 && only !== undefined) {
    await new Promise<void>((resolve, reject) => {
      channel.sendToQueue(queue, Buffer.from(only), { persistent: true }, (error) =>
        error ? reject(error) : resolve(),
      );
    });
    return;
  }
  for (const body of bodies) channel.sendToQueue(queue, Buffer.from(body), { persistent: true });
  await channel.waitForConfirms();
}

/**
 * With batches of one, it acknowledges each delivery by itself. Otherwise one acknowledgement
 * covers all that came in one turn of the event loop.
 */
function acknowledge(channel: Channel, batch: number, sink: Sink): (message: Delivery | null) => void {
  let last: Delivery | undefined;
  let count = 0;
  const flush = (): void => {
    if (last !== undefined) channel.ack(last, true);
    const done = count;
    last = undefined;
    count = 0;
    sink.completed(done);
  };
  return (message) => {
    if (message === null) return sink.failed(new Error('the queue is gone'));
    sink.received(message.content.toString('latin1'));
    last = message;
    count += 1;
    if (batch === 1) flush();
    else if (count === 1) setImmediate(flush);
  };
}

/** Entry of the client's process. */
export function main(): void {
  serve(new RabbitMqClient());
}
