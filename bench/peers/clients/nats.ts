import type { PeerQueue, PeerClient, Plan, Sink } from '../client.js';
import { serve } from '../serve.js';
import { peerPackage } from './peer-package.js';

interface NatsConnection {
  drain(): Promise<void>;
}

interface TransportPackage {
  connect: (options: { servers: string }) => Promise<NatsConnection>;
}

interface Message {
  string(): string;
  ack(): void;
}

/** The part of nats.js that the benchmark uses: https://nats-io.github.io/nats.js/jetstream/ */
interface JetStreamPackage {
  jetstream: (connection: NatsConnection) => JetStream;
  jetstreamManager: (connection: NatsConnection) => Promise<JetStreamManager>;
}

interface JetStream {
  publish(subject: string, body: string): Promise<unknown>;
  startBatch(subject: string, body: string): Promise<Batch>;
  consumers: { get(stream: string, consumer: string): Promise<Consumer> };
}

interface Batch {
  add(subject: string, body: string): void;
  commit(subject: string, body: string): Promise<unknown>;
}

interface Consumer {
  consume(options: {
    max_messages: number;
    callback: (message: Message) => void;
  }): Promise<{ close(): Promise<unknown> }>;
}

interface StreamConfig {
  name: string;
  subjects: string[];
  retention: 'workqueue';
  storage: 'file';
  allow_atomic: boolean;
}

interface JetStreamManager {
  streams: {
    add(config: StreamConfig): Promise<unknown>;
    info(name: string): Promise<{ state: { messages: number } }>;
    delete(name: string): Promise<unknown>;
  };
  consumers: {
    add(stream: string, config: { durable_name: string; ack_policy: 'explicit' }): Promise<unknown>;
  };
}

/**
 * A work-queue stream forgets an acknowledged message
 * (https://docs.nats.io/nats-concepts/jetstream/streams). All consumers share one durable pull
 * consumer. They read with `consume`, which asks for the next messages before the last are used up
 * (https://docs.nats.io/using-nats/developer/develop_jetstream/consumers). A producer has many
 * publishes in flight before the first is answered.
 */
class NatsClient implements PeerClient {
  private connection!: NatsConnection;
  private stream!: JetStream;
  private manager!: JetStreamManager;
  private atomic = false;

  async connect(address: string, options: { atomic: number }): Promise<void> {
    this.atomic = options.atomic === 1;
    const { connect } = peerPackage('@nats-io/transport-node') as TransportPackage;
    const { jetstream, jetstreamManager } = peerPackage('@nats-io/jetstream') as JetStreamPackage;
    this.connection = await connect({ servers: address });
    this.stream = jetstream(this.connection);
    this.manager = await jetstreamManager(this.connection);
  }

  async openQueue(plan: Plan): Promise<PeerQueue> {
    const { manager, stream } = this;
    const { queue } = plan;
    await manager.streams.add({
      name: queue,
      subjects: [queue],
      retention: 'workqueue',
      storage: 'file',
      allow_atomic: this.atomic,
    });
    await manager.consumers.add(queue, { durable_name: 'bench', ack_policy: 'explicit' });
    const readers: { close(): Promise<unknown> }[] = [];
    return {
      enqueue: async (bodies) => {
        if (this.atomic) await publishAtomically(stream, queue, bodies);
        else await Promise.all(bodies.map(async (body) => stream.publish(queue, body)));
      },
      consume: async (sink) => {
        const consumer = await stream.consumers.get(queue, 'bench');
        for (let reader = 0; reader < plan.consumers; reader += 1) {
          readers.push(await consumer.consume({ max_messages: plan.batch, callback: acknowledge(sink) }));
        }
      },
      remaining: async () => (await manager.streams.info(queue)).state.messages,
      close: async () => {
        await Promise.all(readers.map((reader) => reader.close()));
        await manager.streams.delete(queue);
      },
    };
  }

  async close(): Promise<void> {
    await this.connection.drain();
  }
}

/**
 * Publishes all messages or none, like RowMQ's enqueue. A batch has 1,000 messages at most:
 * https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md
 */
async function publishAtomically(stream: JetStream, queue: string, bodies: string[]): Promise<void> {
  const [first, ...rest] = bodies;
  const last = rest.pop();
  if (first === undefined || last === undefined) throw new Error('a batch has two messages at least');
  const batch = await stream.startBatch(queue, first);
  for (const body of rest) batch.add(queue, body);
  await batch.commit(queue, last);
}

function acknowledge(sink: Sink): (message: Message) => void {
  return (message) => {
    sink.received(message.string());
    message.ack();
    sink.completed(1);
  };
}

/** Entry of the client's process. */
export function main(): void {
  serve(new NatsClient());
}
