import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type AckRequest, type DequeueAnswer, type NackRequest, RowmqError } from '@rowmq/contract';
import { describe, expect, it, vi } from 'vitest';
import type { BrokerClient } from '../broker-client.js';
import { BrokerUnreachableError } from '../http/broker-unreachable.error.js';
import { RowmqHttpClient } from '../http/rowmq-http-client.js';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import { Delivery } from './message.js';
import { ConsumerStoppedError } from './outcomes.js';
import { Settler } from './settler.js';

const QUEUE = 'orders';
const TWELVE_HOURS_MS = 43_200_000;

/** Leases this many deliveries for twelve hours. */
async function leased(broker: InMemoryBroker, count: number): Promise<Delivery[]> {
  await broker.enqueue(QUEUE, { messages: Array.from({ length: count }, (_, index) => ({ body: String(index) })) });
  const { messages } = await broker.dequeue(QUEUE, { maxMessages: count, leaseSeconds: 43_200 });
  return messages.map((message) => {
    const delivery = new Delivery(message, () => undefined, 43_200);
    delivery.leaseEndsAt = performance.now() + TWELVE_HOURS_MS;
    return delivery;
  });
}

/** A settler, and what it tells. */
function settlerOf(client: BrokerClient) {
  const done: string[] = [];
  const lost: string[] = [];
  const failures: { error: unknown; bodies: string[] }[] = [];
  const settler = new Settler(client, QUEUE, {
    onDone: ({ message }) => done.push(message.body),
    onLost: ({ message }) => lost.push(message.body),
    onFailure: (error, deliveries) => failures.push({ error, bodies: deliveries.map(({ message }) => message.body) }),
    instead: () => ({ verb: 'nack', delaySeconds: 0 }),
  });
  return { settler, done, lost, failures };
}

/** Does not answer a nack with the reason `slow` until it is let go. */
class SlowBroker extends InMemoryBroker {
  underWay = 0;
  most = 0;
  letGo: () => void = () => undefined;
  private readonly held = new Promise<void>((resolve) => (this.letGo = resolve));

  override async nack(queue: string, request: NackRequest) {
    this.underWay += 1;
    this.most = Math.max(this.most, this.underWay);
    await (request.reason === 'slow' ? this.held : new Promise((resolve) => setImmediate(resolve)));
    this.underWay -= 1;
    return super.nack(queue, request);
  }
}

it('the settler makes four requests at a time, and a slow one does not hold up the others', async () => {
  const broker = new SlowBroker();
  const deliveries = await leased(broker, 12);
  const { settler, done } = settlerOf(broker);
  for (const [index, delivery] of deliveries.entries()) {
    settler.add(delivery, { verb: 'nack', delaySeconds: 60, reason: index === 0 ? 'slow' : `reason ${index}` });
  }
  await vi.waitUntil(() => done.length === 11);
  expect(done).not.toContain('0');
  expect(broker.most).toBe(4);
  broker.letGo();
  await settler.flush();
  expect(done).toHaveLength(12);
});

class AwayBroker extends InMemoryBroker {
  asked = 0;
  private onSecond = (): void => undefined;
  /** Resolves during the second ack, so that no third one can come in between. */
  readonly askedTwice = new Promise<void>((resolve) => (this.onSecond = resolve));

  override async ack(_queue: string, _request: AckRequest): Promise<never> {
    this.asked += 1;
    if (this.asked > 100) throw new Error('asked for ever');
    if (this.asked === 2) this.onSecond();
    throw new BrokerUnreachableError('away', 'http://nowhere', 'unknown');
  }
}

it('a closed settler sends nothing more, however long its leases are, and reports the unsettled messages', async () => {
  const broker = new AwayBroker();
  const { settler, done, failures } = settlerOf(broker);
  for (const delivery of await leased(broker, 3)) settler.add(delivery, { verb: 'ack' });
  await broker.askedTwice;
  expect(failures).toEqual([]);
  settler.close(new Error('enough'));
  await settler.flush();
  expect(failures).toEqual([{ error: expect.any(BrokerUnreachableError), bodies: ['0', '1', '2'] }]);
  expect(done).toEqual(['0', '1', '2']);
  expect(broker.asked).toBe(2);
});

it('the settler cancels the request in flight when it is closed', async () => {
  let asked = 0;
  const server = createServer(() => (asked += 1)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = new RowmqHttpClient({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
  try {
    const { settler, done, failures } = settlerOf(client);
    for (const delivery of await leased(new InMemoryBroker(), 1)) settler.add(delivery, { verb: 'ack' });
    await vi.waitUntil(() => asked === 1);
    const reason = new Error('enough');
    settler.close(reason);
    await settler.flush();
    expect(failures).toEqual([{ error: reason, bodies: ['0'] }]);
    expect(done).toEqual(['0']);
  } finally {
    await client.close();
    server.closeAllConnections();
    server.close();
  }
});

describe('the acks that a dequeue carries', () => {
  /** Records the size of each ack that goes by itself. */
  class RecordingBroker extends InMemoryBroker {
    readonly acks: number[] = [];

    override async ack(queue: string, request: AckRequest) {
      this.acks.push(request.receipts.length);
      return super.ack(queue, request);
    }
  }

  /** A settler with so many acks to send. */
  async function acking(count: number) {
    const broker = new RecordingBroker();
    const deliveries = [];
    for (let left = count; left > 0; left -= 100) deliveries.push(...(await leased(broker, Math.min(left, 100))));
    const told = settlerOf(broker);
    for (const delivery of deliveries) told.settler.add(delivery, { verb: 'ack' });
    return { broker, ...told };
  }

  const answerOf = (failed?: DequeueAnswer['failed']): DequeueAnswer => ({ messages: [], acked: [], failed });

  it('are those that have not been sent, and do not go by themselves too', async () => {
    const { broker, settler, done } = await acking(3);
    const answer = await settler.dequeue(async (ack) => broker.dequeue(QUEUE, { ack }));
    await settler.flush();
    expect(answer).toMatchObject({ messages: [], acked: [expect.any(String), expect.any(String), expect.any(String)] });
    expect(done).toEqual(['0', '1', '2']);
    expect(broker.messages(QUEUE)).toEqual([]);
    expect(broker.acks).toEqual([]);
  });

  it('are a hundred at most, and the others go by themselves while the dequeue waits', async () => {
    const { broker, settler, done } = await acking(130);
    let answer: (answer: DequeueAnswer) => void = () => undefined;
    let carried = 0;
    const dequeue = settler.dequeue((ack) => {
      carried = ack.length;
      return new Promise((resolve) => (answer = resolve));
    });
    await vi.waitUntil(() => done.length === 30);
    expect(carried).toBe(100);
    expect(broker.acks).toEqual([30]);
    answer(answerOf([]));
    await dequeue;
    expect(done).toHaveLength(130);
  });

  it('are none when all have been sent, and the dequeue is sent without them', async () => {
    const { broker, settler, done } = await acking(2);
    await vi.waitUntil(() => done.length === 2);
    const carried: number[] = [];
    await settler.dequeue(async (ack) => {
      carried.push(ack.length);
      return { messages: [] };
    });
    expect(carried).toEqual([0]);
    expect(broker.acks).toEqual([2]);
  });

  it('are reported as lost, or as done, as the broker answers for each', async () => {
    const { settler, done, lost, failures } = await acking(3);
    await settler.dequeue(async ([first, second]) =>
      answerOf([
        { receipt: first!, code: 'lease-lost' },
        { receipt: second!, code: 'delivery-not-found' },
      ]),
    );
    expect({ done, lost, failures }).toEqual({ done: ['0', '1', '2'], lost: ['0'], failures: [] });
  });

  it('are sent again when the dequeue got no answer, and one that was settled counts as done', async () => {
    const { broker, settler, done, lost, failures } = await acking(2);
    const gone = new BrokerUnreachableError('away', 'http://nowhere', 'unknown');
    const dequeue = settler.dequeue(async ([first]) => {
      await broker.dequeue(QUEUE, { ack: [first!] });
      throw gone;
    });
    await expect(dequeue).rejects.toBe(gone);
    expect(done).toEqual([]);
    await settler.flush();
    expect({ done, lost, failures }).toEqual({ done: ['0', '1'], lost: [], failures: [] });
    expect(broker.messages(QUEUE)).toEqual([]);
    expect(broker.acks).toEqual([2]);
  });

  it('are reported as unsettled when the broker refuses the dequeue for good, or has no answer for them', async () => {
    const refusal = new RowmqError('queue-not-found', 'There is no such queue.');
    for (const [send, error] of [
      [async () => Promise.reject(refusal), refusal],
      [async () => ({ messages: [] }), expect.any(TypeError)],
    ] as const) {
      const { broker, settler, done, failures } = await acking(2);
      await settler.dequeue(send).catch(() => undefined);
      await settler.flush();
      expect({ done, failures }).toEqual({ done: ['0', '1'], failures: [{ error, bodies: ['0', '1'] }] });
      expect(broker.acks).toEqual([]);
    }
  });

  it('go by themselves at once when the consumer stops and gives the dequeue up', async () => {
    const { broker, settler, done, failures } = await acking(2);
    const stopped = new ConsumerStoppedError('The consumer was stopped.');
    await expect(settler.dequeue(async () => Promise.reject(stopped))).rejects.toBe(stopped);
    await settler.flush();
    expect({ done, failures }).toEqual({ done: ['0', '1'], failures: [] });
    expect(broker.acks).toEqual([2]);
    expect(broker.messages(QUEUE)).toEqual([]);
  });
});
