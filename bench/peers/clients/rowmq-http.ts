import type { AckAnswer, DequeueAnswer, QueueAnswer } from '@rowmq/contract';
import { HttpConnection } from '../../harness/http-connection.js';
import { type Lane, type PeerClient, type Plan, PullConsumers, type Sink } from '../client.js';
import { serve } from '../serve.js';

/** Long polls, so that nobody asks an empty queue in vain. */
const WAIT_SECONDS = 20;

/** RowMQ's REST API by the connections of `npm run bench`'s load, which cost the least CPU; each has one request under way at a time. */
class RowmqHttpClient implements PeerClient {
  private address!: string;

  async connect(address: string): Promise<void> {
    this.address = address;
    return Promise.resolve();
  }

  async openLane(plan: Plan): Promise<Lane> {
    const path = `/v1/queues/${plan.queue}/messages`;
    const admin = `${this.address}/v1/admin/queues/${plan.queue}`;
    await fetch(admin, { method: 'PUT', headers: { 'content-type': 'application/json' }, body: '{}' });
    const producing = await this.open(plan.producers);
    const consuming = await this.open(plan.consumers);
    let consumers: PullConsumers | undefined;
    return {
      enqueue: async (bodies) => {
        const connection = producing.pop() ?? (await HttpConnection.open(this.address));
        await call(connection, path, { messages: bodies.map((body) => ({ body })) });
        producing.push(connection);
      },
      consume: async (sink) => {
        consumers = new PullConsumers(plan.consumers, sink, async (consumer) =>
          dequeueAndAck(consuming[consumer] as HttpConnection, path, plan.batch, sink),
        );
        return Promise.resolve();
      },
      remaining: async () => {
        const { stats } = (await (await fetch(admin)).json()) as QueueAnswer;
        return stats.ready + stats.delayed + stats.leased;
      },
      close: async () => {
        const stopped = consumers?.stop();
        // Ends the long polls that are still waiting.
        for (const connection of [...producing, ...consuming]) connection.close();
        await stopped;
      },
    };
  }

  private async open(count: number): Promise<HttpConnection[]> {
    return Promise.all(Array.from({ length: count }, async () => HttpConnection.open(this.address)));
  }

  async close(): Promise<void> {
    return Promise.resolve();
  }
}

async function dequeueAndAck(
  connection: HttpConnection,
  path: string,
  maxMessages: number,
  sink: Sink,
): Promise<number> {
  const asked = { maxMessages, waitSeconds: WAIT_SECONDS };
  const { messages } = await call<DequeueAnswer>(connection, `${path}/dequeue`, asked);
  if (messages.length === 0) return 0;
  for (const { body } of messages) sink.received(body);
  const receipts = messages.map(({ receipt }) => receipt);
  const { acked } = await call<AckAnswer>(connection, `${path}/ack`, { receipts });
  return acked.length;
}

async function call<T>(connection: HttpConnection, path: string, body: unknown): Promise<T> {
  const { status, text } = await connection.post(path, JSON.stringify(body));
  if (status >= 300) throw new Error(`POST ${path} answered ${status}: ${text}`);
  return JSON.parse(text) as T;
}

/** Entry of the client's process. */
export function main(): void {
  serve(new RowmqHttpClient());
}
