import { type AckRequest, type PutQueueRequest, type PutSubscriptionRequest, RowmqError } from '@rowmq/contract';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BrokerUnreachableError } from '../http/broker-unreachable.error.js';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import { BootCheck } from './boot-check.js';
import { type NeededQueue, type NeededTopic, QueueCheck } from './queue-check.js';

/** Has only the queues that were put, and fails the first tries of a check. */
class TroubledBroker extends InMemoryBroker {
  tries = 0;
  readonly #troubles: Error[];

  constructor(...troubles: Error[]) {
    super();
    this.#troubles = troubles;
  }

  override async ack(queue: string, request: AckRequest) {
    this.#try();
    const { queues } = await this.listQueues();
    if (!queues.some(({ name }) => name === queue)) throw new RowmqError('queue-not-found', `no queue '${queue}'`);
    return super.ack(queue, request);
  }

  override async getTopic(topic: string) {
    this.#try();
    const { topics } = await this.listTopics();
    if (!topics.some(({ name }) => name === topic)) throw new RowmqError('topic-not-found', `no topic '${topic}'`);
    return super.getTopic(topic);
  }

  override async putSubscription(topic: string, queue: string, request: PutSubscriptionRequest) {
    await this.getTopic(topic);
    return super.putSubscription(topic, queue, request);
  }

  override async createQueue(queue: string, settings?: PutQueueRequest) {
    this.#try();
    await super.putQueue(queue, settings);
  }

  #try(): void {
    this.tries += 1;
    const trouble = this.#troubles.shift();
    if (trouble !== undefined) throw trouble;
  }
}

const away = () => new BrokerUnreachableError('away', 'http://nowhere', 'not-sent');
const locked = () => new RowmqError('queue-locked', 'a transaction keeps it');

describe('the check of queues at boot', () => {
  let closing: AbortController;
  let log: string[];
  beforeEach(() => {
    closing = new AbortController();
    log = [];
  });
  afterEach(() => closing.abort());

  const check = async (broker: InMemoryBroker, ...needed: NeededQueue[]): Promise<void> => {
    const keep = (level: string) => (line: unknown) => void log.push(`${level}: ${String(line)}`);
    const logger = { warn: keep('warn'), error: keep('error') };
    const steps = new QueueCheck(broker).steps({ queues: needed, consumed: new Set() });
    await new BootCheck(logger, closing.signal).runAll(steps);
  };
  const names = async (broker: InMemoryBroker) => (await broker.listQueues()).queues.map(({ name }) => name);

  it('passes over a queue that a transaction keeps locked, and creates it once it can', async () => {
    const broker = new TroubledBroker(locked(), locked());
    await check(broker, { name: 'orders', create: true });
    expect(log).toEqual([expect.stringMatching(/^warn: Queue 'orders' could not be checked yet: .*keeps it/)]);
    await vi.waitUntil(async () => (await names(broker)).includes('orders'));
    expect(broker.tries).toBe(3);
  });

  it('goes on after an outage with queues that it does not create, and logs that one is missing', async () => {
    const broker = new TroubledBroker(away());
    await check(broker, { name: 'missing' }, { name: 'orders', create: true });
    await vi.waitUntil(async () => (await names(broker)).includes('orders'));
    expect(log).toEqual([
      expect.stringMatching(/^warn: Queue 'missing' could not be checked yet/),
      expect.stringMatching(/^error: Queue 'missing' does not exist: create it with PUT/),
    ]);
  });

  it('is a fault for a topic that is missing, for its publisher and for its subscriber', async () => {
    const broker = new TroubledBroker();
    const checkTopics = (topics: NeededTopic[], queues: NeededQueue[] = []) =>
      new BootCheck({ warn: () => undefined, error: () => undefined }, closing.signal).runAll(
        new QueueCheck(broker).steps({ queues, consumed: new Set(), topics }),
      );
    await expect(checkTopics([{ name: 'events' }])).rejects.toThrow(
      /Topic 'events' does not exist: create it with PUT/,
    );
    const mails = { name: 'mails', create: true, subscribeTo: [{ topic: 'events', filter: { kind: ['paid'] } }] };
    await expect(checkTopics([], [mails])).rejects.toThrow(
      /Queue 'mails' subscribes to 'events', and one of these topics does not exist/,
    );
    await checkTopics([{ name: 'events', create: { deduplicationSeconds: 60 } }], [mails]);
    const { deduplicationSeconds, subscriptions } = await broker.getTopic('events');
    expect(deduplicationSeconds).toBe(60);
    expect(subscriptions).toMatchObject([{ queue: 'mails', filter: { kind: ['paid'] } }]);
    // A change of an operator stays, unless the application says more.
    await checkTopics([{ name: 'events', create: true }], [{ name: 'mails', subscribeTo: [{ topic: 'events' }] }]);
    expect(await broker.getTopic('events')).toMatchObject({ deduplicationSeconds: 60, subscriptions });
  });

  it('is a fault for a missing queue, and for update without settings', async () => {
    await expect(check(new TroubledBroker(), { name: 'orders' })).rejects.toThrow(/'orders' does not exist/);
    const broker = new TroubledBroker();
    for (const create of [undefined, true]) {
      await expect(check(broker, { name: 'orders', create, update: true })).rejects.toThrow(
        /'orders' has update: true but no settings/,
      );
    }
    expect(await names(broker)).toEqual([]);
  });
});
