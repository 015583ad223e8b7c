import type { PeerQueue, PeerClient, Plan } from '../client.js';
import { serve } from '../serve.js';
import { peerPackage } from './peer-package.js';

interface Payload {
  body: string;
}

interface JobOptions {
  removeOnComplete: boolean;
}

interface Connection {
  host: string;
  port: number;
  maxRetriesPerRequest: null;
}

/** The part of BullMQ that the benchmark uses: https://docs.bullmq.io */
interface Queue {
  add(name: string, data: Payload, options: JobOptions): Promise<unknown>;
  addBulk(jobs: { name: string; data: Payload; opts: JobOptions }[]): Promise<unknown>;
  getJobCountByTypes(...types: string[]): Promise<number>;
  close(): Promise<void>;
}

interface Worker {
  on(event: 'completed', listener: () => void): void;
  on(event: 'error', listener: (error: Error) => void): void;
  on(event: 'failed', listener: (job: unknown, error: Error) => void): void;
  waitUntilReady(): Promise<unknown>;
  close(): Promise<void>;
}

interface BullMq {
  Queue: new (name: string, options: { connection: Connection }) => Queue;
  Worker: new (
    name: string,
    processor: (job: { data: Payload }) => Promise<void>,
    options: { connection: Connection; concurrency: number },
  ) => Worker;
}

/**
 * Else completed jobs stay until Redis is full:
 * https://docs.bullmq.io/guide/queues/auto-removal-of-jobs
 */
const JOB_OPTIONS: JobOptions = { removeOnComplete: true };

/**
 * Producers add jobs in bulk (https://docs.bullmq.io/guide/queues/adding-bulks). A worker gets one
 * job at a time, and the next one with the answer to the last. Without the paid edition, its
 * concurrency is its only batching (https://docs.bullmq.io/guide/queues/batches).
 */
class BullMqClient implements PeerClient {
  private readonly library = peerPackage('bullmq') as BullMq;
  private connection!: Connection;

  async connect(address: string): Promise<void> {
    const { hostname, port } = new URL(address);
    // As workers need it: https://docs.bullmq.io/guide/going-to-production
    this.connection = { host: hostname, port: Number(port), maxRetriesPerRequest: null };
    return Promise.resolve();
  }

  async openQueue(plan: Plan): Promise<PeerQueue> {
    const { connection } = this;
    const queue = new this.library.Queue(plan.queue, { connection });
    let worker: Worker | undefined;
    return Promise.resolve({
      enqueue: async (bodies) => {
        const [only] = bodies;
        if (bodies.length > 1) {
          await queue.addBulk(bodies.map((body) => ({ name: 'bench', data: { body }, opts: JOB_OPTIONS })));
        } else if (only !== undefined) await queue.add('bench', { body: only }, JOB_OPTIONS);
      },
      consume: async (sink) => {
        worker = new this.library.Worker(
          plan.queue,
          async ({ data }) => {
            sink.received(data.body);
            return Promise.resolve();
          },
          { connection, concurrency: plan.consumers },
        );
        worker.on('completed', () => sink.completed(1));
        worker.on('failed', (_job, error) => sink.failed(error));
        worker.on('error', (error) => sink.failed(error));
        await worker.waitUntilReady();
      },
      remaining: async () =>
        queue.getJobCountByTypes('waiting', 'active', 'delayed', 'prioritized', 'failed', 'completed'),
      close: async () => {
        await worker?.close();
        await queue.close();
      },
    });
  }

  async close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Entry of the client's process. */
export function main(): void {
  serve(new BullMqClient());
}
