import { setImmediate } from 'node:timers/promises';
import { type LeasedDelivery, type MessageRepository, type Queue, type QueueRepository } from '@rowmq/store';
import { newPackId } from '@rowmq/contract';
import { describe, expect, test, vi } from 'vitest';
import { Metrics } from '../metrics/metrics.js';
import { Commits } from './commits.js';
import { MessagesService } from './messages.service.js';
import { WaitingConsumers } from './waiting-consumers.js';

const QUEUE = { id: 7, name: 'q', leaseSeconds: 30, paused: false } as Queue;
const CONFIG = { poolSize: 16, batchRequests: 1000, maxWaitingRequests: 100, maxLongPolls: 10 };
const REQUEST = { maxMessages: 10, waitSeconds: 0 };

const leased: LeasedDelivery[] = ['a', 'b'].map((body) => ({
  messageId: newPackId(),
  leaseToken: Buffer.alloc(8),
  body: Buffer.from(body),
  headers: null,
  priority: 4,
  receiveCount: 1,
  expiresAt: 0,
  leaseExpiresAt: 0,
}));

/** The service on a store whose claims the test answers. It records releases. */
function newService(claim: () => Promise<LeasedDelivery[]> = async () => leased) {
  const release = vi.fn<MessageRepository['release']>().mockResolvedValue();
  const claimed: MessageRepository['claim'] = async () => ({
    leased: [await claim()],
    claimAgain: Promise.resolve(false),
  });
  const messages = { claim: claimed, release } as unknown as MessageRepository;
  const queues = { get: async () => QUEUE } as unknown as QueueRepository;
  const metrics = new Metrics();
  const consumers = new WaitingConsumers(messages, queues, metrics, CONFIG);
  const wake = vi.spyOn(consumers, 'wake');
  const commits = new Commits(messages, consumers, metrics, CONFIG);
  return { service: new MessagesService(messages, queues, commits, consumers, metrics), release, wake };
}

describe('the messages of a dequeue', () => {
  test('are not released while the consumer is connected', async () => {
    const { service, release } = newService();
    const { messages } = await service.dequeue('q', REQUEST, new AbortController().signal);
    expect(messages.map(({ body }) => body)).toEqual(['a', 'b']);
    expect(release).not.toHaveBeenCalled();
  });

  test('are released, and wake others, when the consumer hangs up while the answer is written', async () => {
    const { service, release, wake } = newService();
    const consumer = new AbortController();
    await service.dequeue('q', REQUEST, consumer.signal);
    expect(release).not.toHaveBeenCalled();
    consumer.abort();
    await vi.waitFor(() => expect(wake).toHaveBeenCalledWith('q', leased.length));
    expect(release).toHaveBeenCalledExactlyOnceWith({ queueId: QUEUE.id, receipts: leased });
  });

  test('are released when the consumer hung up while the claim was in flight', async () => {
    const consumer = new AbortController();
    const { service, release, wake } = newService(async () => {
      consumer.abort();
      return leased;
    });
    await service.dequeue('q', REQUEST, consumer.signal);
    await vi.waitFor(() => expect(wake).toHaveBeenCalledWith('q', leased.length));
    expect(release).toHaveBeenCalledExactlyOnceWith({ queueId: QUEUE.id, receipts: leased });
  });

  test('are not released if there are none', async () => {
    const { service, release } = newService(async () => []);
    expect(await service.dequeue('q', REQUEST, AbortSignal.abort())).toEqual({ messages: [] });
    expect(release).not.toHaveBeenCalled();
  });

  test('are released before a stop goes on, also if the claim was still in flight', async () => {
    let [endClaim, endRelease] = [() => undefined as void, () => undefined as void];
    const claim = vi.fn<() => Promise<LeasedDelivery[]>>(
      async () => new Promise((resolve) => (endClaim = () => resolve(leased))),
    );
    const { service, release } = newService(claim);
    release.mockImplementation(async () => new Promise((resolve) => (endRelease = resolve)));
    const consumer = new AbortController();
    const answer = service.dequeue('q', REQUEST, consumer.signal);
    await vi.waitFor(() => expect(claim).toHaveBeenCalledOnce());
    consumer.abort();
    const seen: string[] = [];
    const stopped = service.onApplicationShutdown().then(() => seen.push('stopped'));
    endClaim();
    expect(await answer).toEqual({ messages: [] });
    await vi.waitFor(() => expect(release).toHaveBeenCalledOnce());
    await setImmediate();
    seen.push('released');
    endRelease();
    await stopped;
    expect(seen).toEqual(['released', 'stopped']);
  });

  test('do not delay a stop when no claim is in flight', async () => {
    const { service } = newService();
    await service.dequeue('q', REQUEST, new AbortController().signal);
    await expect(service.onApplicationShutdown()).resolves.toBeUndefined();
  });
});
