import { setMaxListeners } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { Logger } from '@nestjs/common';
import { type LeasedMessage, type MessageRepository, type Queue, type QueueRepository } from '@rowmq/store';
import { encodeReceipt, newPackId, RowmqError, sizeLimits } from '@rowmq/contract';
import { describe, expect, test, vi } from 'vitest';
import { Metrics } from '../metrics/metrics.js';
import { Commits } from './commits.js';
import { MessagesService } from './messages.service.js';
import { noLimits, noPressure } from './no-limits.test-support.js';
import { WaitingConsumers } from './waiting-consumers.js';

const QUEUE = { id: 7, name: 'q', leaseSeconds: 30, paused: false, ordering: null } as Queue;
const CONFIG = { poolSize: 16, batchRequests: 1000, maxWaitingRequests: 100, maxLongPolls: 10 };
const REQUEST = { maxMessages: 10, waitSeconds: 0 };

const leased: LeasedMessage[] = ['a', 'b'].map((body) => ({
  messageId: newPackId(),
  leaseToken: Buffer.alloc(8),
  body: Buffer.from(body),
  headers: null,
  priority: 4,
  receiveCount: 1,
  firstReceivedAt: 0,
  moves: null,
  expiresAt: 0,
  leaseExpiresAt: 0,
  part: 0,
  members: 1,
}));

const ackAll: MessageRepository['ack'] = async (requests) => requests.map(({ receipts }) => receipts.map(() => null));

/**
 * The service on a store whose claims and acks the test answers. It records releases. With
 * `follow`, its queue is ordered.
 */
function newService(
  claim: () => Promise<LeasedMessage[]> = async () => leased,
  ack = ackAll,
  follow?: MessageRepository['follow'],
) {
  const release = vi.fn<MessageRepository['release']>(ackAll);
  const claimed: MessageRepository['claim'] = async () => [
    { leased: [await claim()], claimAgain: Promise.resolve(false) },
  ];
  const messages = { claim: claimed, release, ack, follow } as unknown as MessageRepository;
  const queue = { ...QUEUE, ordering: follow === undefined ? null : 'group' };
  const queues = { get: async () => queue } as unknown as QueueRepository;
  const metrics = new Metrics({ metricsQueues: 200 });
  const consumers = new WaitingConsumers(
    messages,
    queues,
    metrics,
    CONFIG,
    {
      wake: () => undefined,
      parked: () => undefined,
    },
    noLimits(),
    noPressure(),
  );
  const wake = vi.spyOn(consumers, 'wake');
  const commits = new Commits(messages, queues, consumers, metrics, CONFIG, noPressure());
  return {
    service: new MessagesService(queues, commits, consumers, metrics, { sizes: sizeLimits() }, noLimits(), messages),
    consumers,
    release,
    wake,
  };
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
    expect(release).toHaveBeenCalledExactlyOnceWith([{ queueId: QUEUE.id, receipts: leased }]);
  });

  test('are released when the consumer hung up while the claim was in flight', async () => {
    const consumer = new AbortController();
    const { service, release, wake } = newService(async () => {
      consumer.abort();
      return leased;
    });
    await service.dequeue('q', REQUEST, consumer.signal);
    await vi.waitFor(() => expect(wake).toHaveBeenCalledWith('q', leased.length));
    expect(release).toHaveBeenCalledExactlyOnceWith([{ queueId: QUEUE.id, receipts: leased }]);
  });

  test('are not released if there are none', async () => {
    const { service, release } = newService(async () => []);
    expect(await service.dequeue('q', REQUEST, AbortSignal.abort())).toEqual({ messages: [] });
    expect(release).not.toHaveBeenCalled();
  });

  test('are released before a stop goes on, also if the claim was still in flight', async () => {
    let [endClaim, endRelease] = [() => undefined as void, () => undefined as void];
    const claim = vi.fn<() => Promise<LeasedMessage[]>>(
      async () => new Promise((resolve) => (endClaim = () => resolve(leased))),
    );
    const { service, release } = newService(claim);
    release.mockImplementation(async () => new Promise((resolve) => (endRelease = () => resolve([[null, null]]))));
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

describe('the messages of a receive', () => {
  const follower = { ...(leased[0] as LeasedMessage), body: Buffer.from('c') };
  const receive = async (service: MessagesService, hungUp = new AbortController().signal): Promise<string[]> =>
    (await service.receive('q', REQUEST, hungUp)).map(({ body }) => String(body));

  test('are followed by the next ones of their groups in an ordered queue', async () => {
    const follow = vi.fn<MessageRepository['follow']>(async () => [follower]);
    expect(await receive(newService(undefined, undefined, follow).service)).toEqual(['a', 'b', 'c']);
    expect(follow).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ id: 7 }), leased, 8);
    expect(await receive(newService().service)).toEqual(['a', 'b']);
  });

  test('come alone if the next ones cannot be leased', async () => {
    vi.spyOn(Logger.prototype, 'warn').mockImplementation(() => undefined);
    const { service } = newService(undefined, undefined, async () => Promise.reject(new Error('no database')));
    expect(await receive(service)).toEqual(['a', 'b']);
  });

  test('are all released when the consumer hangs up meanwhile', async () => {
    const consumer = new AbortController();
    const { service, release } = newService(undefined, undefined, async () => {
      consumer.abort();
      return [follower];
    });
    expect(await receive(service, consumer.signal)).toEqual([]);
    await vi.waitFor(() =>
      expect(release).toHaveBeenCalledExactlyOnceWith([{ queueId: 7, receipts: [...leased, follower] }]),
    );
  });
});

describe('messages that a consumer releases', () => {
  const receipts = leased.map((one) => encodeReceipt(one));

  test('wake other consumers if they are ready at once, and only those whose lease was held', async () => {
    const { service, release, wake } = newService();
    release.mockResolvedValueOnce([['lease-lost', null]]);
    expect(await service.release('q', { receipts, delaySeconds: 0 })).toEqual({
      released: receipts.slice(1),
      failed: [{ receipt: receipts[0], code: 'lease-lost' }],
    });
    expect(wake).toHaveBeenCalledExactlyOnceWith('q', 1);
  });

  test('wake nobody if they are delayed or none of them was leased', async () => {
    const { service, release, wake } = newService();
    await service.release('q', { receipts, delaySeconds: 5, reason: 'later' });
    release.mockResolvedValueOnce([['lease-lost', 'lease-lost']]);
    await service.release('q', { receipts, delaySeconds: 0 });
    expect(wake).not.toHaveBeenCalled();
  });

  test('share a transaction', async () => {
    const { service, release } = newService();
    await Promise.all(receipts.map((receipt) => service.release('q', { receipts: [receipt], delaySeconds: 0 })));
    expect(release.mock.calls.map(([requests]) => requests.length)).toEqual([2]);
  });
});

describe('the acks that a dequeue carries', () => {
  const RECEIPT = encodeReceipt({ messageId: newPackId(), leaseToken: Buffer.alloc(8, 1), part: 0, members: 1 });
  const CARRYING = { ...REQUEST, ack: [RECEIPT] };
  const ACKED = { acked: [RECEIPT], failed: [] };
  const connected = new AbortController().signal;
  setMaxListeners(0, connected);
  const away = new RowmqError('database-unavailable', 'The database is away.');

  /** Resolves when the test says so. */
  function held() {
    let letGo = (): void => undefined;
    const until = new Promise<void>((resolve) => (letGo = resolve));
    return { until, letGo: () => letGo() };
  }

  test('are committed before the claim of a dequeue that does not wait, and answered beside the messages', async () => {
    const commit = held();
    const claim = vi.fn<() => Promise<LeasedMessage[]>>(async () => leased);
    const ack = vi.fn<MessageRepository['ack']>(async (requests) => commit.until.then(() => ackAll(requests)));
    const { service } = newService(claim, ack);
    const answer = service.dequeue('q', CARRYING, connected);
    await vi.waitFor(() => expect(ack).toHaveBeenCalledOnce());
    await setImmediate();
    expect(claim).not.toHaveBeenCalled();
    commit.letGo();
    expect(await answer).toMatchObject({ messages: [{ body: 'a' }, { body: 'b' }], ...ACKED });
  });

  test('may be none, and are answered as none, but a dequeue without the field has no answer for them', async () => {
    const { service } = newService();
    expect(await service.dequeue('q', { ...REQUEST, ack: [] }, connected)).toMatchObject({ acked: [], failed: [] });
    expect(Object.keys(await service.dequeue('q', REQUEST, connected))).toEqual(['messages']);
  });

  test('are answered with no messages when one was settled and the claim then failed', async () => {
    const { service } = newService(async () => Promise.reject(away));
    expect(await service.dequeue('q', CARRYING, connected)).toEqual({ messages: [], ...ACKED });
    await expect(service.dequeue('q', REQUEST, connected)).rejects.toBe(away);
  });

  test('are answered after an unexpected failure of the claim too, which the broker logs', async () => {
    const bug = new TypeError('a defect');
    const log = vi.spyOn(Logger.prototype, 'error').mockReturnValue();
    const { service } = newService(async () => Promise.reject(bug));
    expect(await service.dequeue('q', CARRYING, connected)).toEqual({ messages: [], ...ACKED });
    expect(log).toHaveBeenCalledExactlyOnceWith(bug);
    log.mockRestore();
  });

  test('do not hide the failure of the claim when none of them was settled', async () => {
    const { service } = newService(
      async () => Promise.reject(away),
      async () => [['lease-lost']],
    );
    await expect(service.dequeue('q', CARRYING, connected)).rejects.toBe(away);
    await expect(service.dequeue('q', { ...REQUEST, ack: [] }, connected)).rejects.toBe(away);
  });

  test('keep the broker from leasing anything when they fail, if it does not wait', async () => {
    const claim = vi.fn<() => Promise<LeasedMessage[]>>(async () => leased);
    const { service } = newService(claim, async () => Promise.reject(away));
    await expect(service.dequeue('q', CARRYING, connected)).rejects.toBe(away);
    expect(claim).not.toHaveBeenCalled();
  });

  test('stand when the consumer hangs up during their commit, and nothing is leased for it', async () => {
    const commit = held();
    const claim = vi.fn<() => Promise<LeasedMessage[]>>(async () => leased);
    const { service, release } = newService(claim, async (requests) => commit.until.then(() => ackAll(requests)));
    const consumer = new AbortController();
    const answer = service.dequeue('q', CARRYING, consumer.signal);
    consumer.abort();
    commit.letGo();
    expect(await answer).toEqual({ messages: [], ...ACKED });
    expect(claim).not.toHaveBeenCalled();
    expect(release).not.toHaveBeenCalled();
  });

  test('stand when the consumer hangs up during the claim, whose messages are released', async () => {
    const consumer = new AbortController();
    const { service, release } = newService(async () => {
      consumer.abort();
      return leased;
    });
    expect(await service.dequeue('q', CARRYING, consumer.signal)).toEqual({ messages: [], ...ACKED });
    await vi.waitFor(() => expect(release).toHaveBeenCalledOnce());
    expect(release).toHaveBeenCalledExactlyOnceWith([{ queueId: QUEUE.id, receipts: leased }]);
  });

  describe('and that waits for messages', () => {
    const WAITING = { ...CARRYING, waitSeconds: 20 };

    /**
     * A service whose acks the test commits or fails, with a consumer that is about to be parked.
     */
    async function parkedService(commit: () => Promise<void>) {
      const claim = vi.fn<() => Promise<LeasedMessage[]>>(async () => []);
      const made = newService(claim, async (requests) => commit().then(() => ackAll(requests)));
      await made.service.dequeue('q', REQUEST, connected);
      claim.mockClear();
      return { ...made, claim };
    }

    test('do not delay the claim, but its answer waits for them', async () => {
      const commit = held();
      const { service, claim } = await parkedService(async () => commit.until);
      claim.mockResolvedValue(leased);
      await service.release('q', { receipts: [RECEIPT], delaySeconds: 0 });
      const answer = service.dequeue('q', WAITING, connected);
      let isAnswered = false;
      void answer.finally(() => (isAnswered = true));
      await vi.waitFor(() => expect(claim).toHaveBeenCalledOnce());
      await setImmediate();
      expect(isAnswered).toBe(false);
      commit.letGo();
      expect(await answer).toMatchObject({ messages: [{ body: 'a' }, { body: 'b' }], ...ACKED });
    });

    test('do not keep the consumer from a hand-off, but its answer waits for them', async () => {
      const commit = held();
      const { service, consumers, claim } = await parkedService(async () => commit.until);
      const answer = service.dequeue('q', WAITING, connected);
      let isAnswered = false;
      void answer.finally(() => (isAnswered = true));
      const [reservation] = consumers.reserve(QUEUE, 2);
      reservation?.handOff(leased);
      await setImmediate();
      expect(isAnswered).toBe(false);
      commit.letGo();
      expect(await answer).toMatchObject({ messages: [{ body: 'a' }, { body: 'b' }], ...ACKED });
      expect(claim).not.toHaveBeenCalled();
    });

    test('make the broker release what was handed off if they fail', async () => {
      const commit = held();
      const { service, consumers, release } = await parkedService(async () =>
        commit.until.then(() => Promise.reject(away)),
      );
      const answer = service.dequeue('q', WAITING, connected);
      const [reservation] = consumers.reserve(QUEUE, 2);
      reservation?.handOff(leased);
      await setImmediate();
      commit.letGo();
      await expect(answer).rejects.toBe(away);
      await vi.waitFor(() =>
        expect(release).toHaveBeenCalledExactlyOnceWith([{ queueId: QUEUE.id, receipts: leased }]),
      );
    });

    test('delay a stop, if they fail, until what is handed off is released', async () => {
      const { service, consumers, release } = await parkedService(async () => Promise.reject(away));
      const answer = service.dequeue('q', WAITING, connected);
      const [reservation] = consumers.reserve(QUEUE, 2);
      await expect(answer).rejects.toBe(away);
      const seen: string[] = [];
      const stopped = service.onApplicationShutdown().then(() => seen.push('stopped'));
      release.mockImplementation(async (requests) => {
        seen.push('released');
        return ackAll(requests);
      });
      await setImmediate();
      reservation?.handOff(leased);
      await stopped;
      expect(seen).toEqual(['released', 'stopped']);
    });

    test('end the wait of the consumer if they fail', async () => {
      const { service, consumers } = await parkedService(async () => Promise.reject(away));
      await expect(service.dequeue('q', WAITING, connected)).rejects.toBe(away);
      expect(consumers.size).toBe(0);
      expect(consumers.reserve(QUEUE, 1)).toEqual([]);
    });

    test('stand if the consumer hangs up meanwhile, and it gets no hand-off', async () => {
      const commit = held();
      const { service, consumers } = await parkedService(async () => commit.until);
      const consumer = new AbortController();
      const answer = service.dequeue('q', WAITING, consumer.signal);
      consumer.abort();
      expect(consumers.reserve(QUEUE, 1)).toEqual([]);
      commit.letGo();
      expect(await answer).toEqual({ messages: [], ...ACKED });
    });
  });

  test('delay a stop until they are committed', async () => {
    const commit = held();
    const ack = vi.fn<MessageRepository['ack']>(async (requests) => commit.until.then(() => ackAll(requests)));
    const { service } = newService(async () => [], ack);
    const seen: string[] = [];
    const answer = service.dequeue('q', CARRYING, connected);
    await vi.waitFor(() => expect(ack).toHaveBeenCalledOnce());
    const stopped = service.onApplicationShutdown().then(() => seen.push('stopped'));
    await setImmediate();
    seen.push('committed');
    commit.letGo();
    await Promise.all([stopped, answer]);
    expect(seen).toEqual(['committed', 'stopped']);
  });
});
