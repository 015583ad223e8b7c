import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { AckRequest, NackRequest } from '@rowmq/contract';
import { expect, it, vi } from 'vitest';
import type { BrokerClient } from '../broker-client.js';
import { BrokerUnreachableError } from '../http/broker-unreachable.error.js';
import { RowmqHttpClient } from '../http/rowmq-http-client.js';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import { Delivery } from './message.js';
import { Settler } from './settler.js';

const QUEUE = 'orders';
const TWELVE_HOURS_MS = 43_200_000;

/** Leases this many deliveries for twelve hours. */
async function leased(broker: InMemoryBroker, count: number): Promise<Delivery[]> {
  await broker.enqueue(QUEUE, { messages: Array.from({ length: count }, (_, index) => ({ body: String(index) })) });
  const { messages } = await broker.dequeue(QUEUE, { maxMessages: count, leaseSeconds: 43_200 });
  return messages.map((message) => {
    const delivery = new Delivery(message, () => undefined);
    delivery.leaseEndsAt = performance.now() + TWELVE_HOURS_MS;
    return delivery;
  });
}

/** A settler, and what it tells. */
function settlerOf(client: BrokerClient) {
  const done: string[] = [];
  const failures: { error: unknown; bodies: string[] }[] = [];
  const settler = new Settler(client, QUEUE, {
    onDone: ({ message }) => done.push(message.body),
    onLost: () => undefined,
    onFailure: (error, deliveries) => failures.push({ error, bodies: deliveries.map(({ message }) => message.body) }),
    instead: () => ({ verb: 'nack', delaySeconds: 0 }),
  });
  return { settler, done, failures };
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
}, 10_000);

it('the settler cancels the request in flight when it is closed', async () => {
  let asked = 0;
  const server = createServer(() => (asked += 1)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = new RowmqHttpClient({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
  try {
    const { settler, done, failures } = settlerOf(client);
    for (const delivery of await leased(new InMemoryBroker(), 1)) settler.add(delivery, { verb: 'ack' });
    await vi.waitUntil(() => asked === 1, { timeout: 5000 });
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
}, 8000);
