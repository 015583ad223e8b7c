import { setMaxListeners } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { RowmqError } from '@rowmq/contract';
import {
  type ClaimOutcome,
  type ClaimRequest,
  type Demand,
  type LeasedMessage,
  type MessageRepository,
  type Queue,
  queueNotFound,
  type QueueRepository,
} from '@rowmq/store';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Metrics } from '../metrics/metrics.js';
import type { Peers } from './peers.js';
import { noLimits, noPressure } from './no-limits.test-support.js';
import { WaitingConsumers } from './waiting-consumers.js';

const LONG = 60_000;
const never = new AbortController().signal;
setMaxListeners(0, never);
const one = { maxMessages: 1, leaseSeconds: undefined, waitMs: LONG };
const NO_PEERS: Peers = { wake: () => undefined, parked: () => undefined };
const CONFIG = { poolSize: 16, batchRequests: 1000, maxWaitingRequests: 100, maxLongPolls: 100 };

const delivery = (body: string): LeasedMessage => ({
  messageId: Buffer.alloc(16),
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
});
const bodies = (deliveries: LeasedMessage[]): string[] => deliveries.map(({ body }) => body.toString());

/** The part of a claim in flight for one queue, which the test answers. */
class HandClaim {
  constructor(
    readonly queueName: string,
    readonly demands: readonly Demand[],
    private readonly resolve: (outcome: ClaimOutcome) => void,
    readonly fail: (error: Error) => void,
  ) {}

  /** The number of messages that each consumer wants. */
  get wanted(): number[] {
    return this.demands.map(({ maxMessages }) => maxMessages);
  }

  /** Leases these bodies to its consumers. */
  bring(...shares: string[][]): void {
    this.answer(shares, false);
  }

  /** Removes deliveries only, so that the claim must be repeated. */
  onlyRemove(): void {
    this.answer([], true);
  }

  private answer(shares: string[][], claimAgain: boolean): void {
    this.resolve({
      leased: this.demands.map((_, index) => (shares[index] ?? []).map(delivery)),
      claimAgain: Promise.resolve(claimAgain),
    });
  }
}

/**
 * A store whose claims the test answers, one by one at the time it chooses. A database cannot do
 * that.
 */
class StoreByHand {
  readonly paused = new Set<string>();
  /** Paused queues that another broker has resumed. */
  readonly resumed = new Set<string>();
  readonly gone = new Set<string>();
  /** Queues in which a poll finds a message. */
  readonly ready = new Set<string>();
  /** Polls that are still to fail. */
  failures = 0;
  /** A poll answers only after this. */
  pollsHeld: Promise<void> | undefined;
  claimsMade = 0;
  pollsMade = 0;
  private readonly ids = new Map<string, number>();
  private readonly underWay: HandClaim[] = [];
  private readonly awaited: ((claim: HandClaim) => void)[] = [];

  /** Queue ids whose next claim looks in every priority. */
  readonly expected: number[] = [];

  readonly messages = {
    expectMore: (queueId: number) => void this.expected.push(queueId),
    claim: async (requests: readonly ClaimRequest[]) => {
      this.claimsMade += 1;
      return Promise.all(requests.map(async (request) => this.claimFrom(request)));
    },
    poll: async (queueIds: readonly number[]) => {
      this.pollsMade += 1;
      await this.pollsHeld;
      if (this.failures > 0) {
        this.failures -= 1;
        throw new RowmqError('database-unavailable', 'gone');
      }
      const found = [...this.ids].filter(([name, id]) => this.ready.has(name) && queueIds.includes(id));
      return new Set(found.map(([, id]) => id));
    },
  } as unknown as MessageRepository;

  private async claimFrom({ queue, demands }: ClaimRequest): Promise<ClaimOutcome> {
    return new Promise<ClaimOutcome>((resolve, reject) => {
      const claim = new HandClaim(queue.name, demands, resolve, reject);
      const waiting = this.awaited.shift();
      if (waiting) waiting(claim);
      else this.underWay.push(claim);
    });
  }

  readonly queues = {
    get: async (name: string) => {
      if (this.gone.has(name)) throw queueNotFound(name);
      return this.queue(name);
    },
    getFresh: async (name: string) => ({
      ...this.queue(name),
      paused: this.paused.has(name) && !this.resumed.has(name),
    }),
    getAll: async (names: readonly string[]) =>
      new Map(names.filter((name) => !this.gone.has(name)).map((name) => [name, this.queue(name)])),
  } as unknown as QueueRepository;

  /** The next claim, as soon as it has begun. */
  async claim(): Promise<HandClaim> {
    return this.underWay.shift() ?? new Promise((resolve) => this.awaited.push(resolve));
  }

  queue(name: string): Queue {
    const id = this.ids.get(name) ?? this.ids.size + 1;
    this.ids.set(name, id);
    return { id, name, leaseSeconds: 30, paused: this.paused.has(name) } as Queue;
  }
}

let store: StoreByHand;
let consumers: WaitingConsumers;

function newConsumers(config: Partial<typeof CONFIG> = {}): WaitingConsumers {
  return new WaitingConsumers(
    store.messages,
    store.queues,
    new Metrics({ metricsQueues: 200 }),
    { ...CONFIG, ...config },
    NO_PEERS,
    noLimits(),
    noPressure(),
  );
}

// Waits, pauses and polls end only when a test advances the clock. The first poll would be due
// after 20 ms, and a busy machine stops a test for longer than that.
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  store = new StoreByHand();
  consumers = newConsumers();
});
afterEach(() => {
  consumers.beforeApplicationShutdown();
  vi.useRealTimers();
});

/** Advances the clock by the longest pause between two polls. */
async function poll(): Promise<void> {
  await vi.advanceTimersByTimeAsync(250);
}

/** A consumer that is parked, after a claim that found its queue empty. */
async function parked(queueName = 'q', waitMs = LONG, signal = never): Promise<{ waiting: Promise<LeasedMessage[]> }> {
  const waiting = consumers.dequeue(queueName, { ...one, waitMs }, signal);
  (await store.claim()).bring([]);
  await turn();
  return { waiting };
}

/**
 * A consumer that is parked while a poll is in flight. The poll finds a message when it is let go.
 */
async function parkedDuringPoll(): Promise<{ waiting: Promise<LeasedMessage[]>; letGo: () => void }> {
  let letGo = (): void => undefined;
  store.pollsHeld = new Promise((resolve) => (letGo = resolve));
  const { waiting } = await parked();
  await poll();
  expect(store.pollsMade).toBe(1);
  store.ready.add('q');
  return { waiting, letGo };
}

describe('a claim', () => {
  test('is one for all consumers of a queue, and the first to come get messages first', async () => {
    const served: string[] = [];
    const takes = [2, 1, 3].map(async (maxMessages, place) => {
      const leased = await consumers.dequeue('q', { ...one, maxMessages }, never);
      served.push(`${place}: ${bodies(leased).join(' ')}`);
    });
    const claim = await store.claim();
    expect(claim.wanted).toEqual([2, 1, 3]);
    claim.bring(['a', 'b'], ['c'], ['d']);
    await Promise.all(takes);
    expect(served).toEqual(['0: a b', '1: c', '2: d']);
    expect(store.claimsMade).toBe(1);
  });

  test('makes leases of different lengths, and of the queue’s length by default', async () => {
    const takes = [undefined, 5, 300].map((leaseSeconds) => consumers.dequeue('q', { ...one, leaseSeconds }, never));
    const claim = await store.claim();
    expect(claim.demands.map(({ leaseSeconds }) => leaseSeconds)).toEqual([30, 5, 300]);
    claim.bring(['a'], ['b'], ['c']);
    await Promise.all(takes);
  });

  test('leaves consumers that come while it is in flight to the next claim', async () => {
    const first = consumers.dequeue('q', one, never);
    const claim = await store.claim();
    const second = consumers.dequeue('q', { ...one, maxMessages: 7 }, never);
    await turn();
    expect(store.claimsMade).toBe(1);
    claim.bring(['1']);
    const next = await store.claim();
    expect(next.wanted).toEqual([7]);
    next.bring(['2']);
    expect([bodies(await first), bodies(await second)]).toEqual([['1'], ['2']]);
  });

  test('that brings too little leaves the consumers without a message first in line for the next', async () => {
    const early = [consumers.dequeue('q', one, never), consumers.dequeue('q', { ...one, maxMessages: 5 }, never)];
    const claim = await store.claim();
    const late = consumers.dequeue('q', { ...one, maxMessages: 9 }, never);
    claim.bring(['1'], []);
    await turn();
    consumers.wake('q', Infinity);
    const next = await store.claim();
    expect(next.wanted).toEqual([5, 9]);
    next.bring(['2'], ['3']);
    expect((await Promise.all([...early, late])).map(bodies)).toEqual([['1'], ['2'], ['3']]);
  });

  test('is for the consumers of several queues, and those that come meanwhile share the next', async () => {
    const takes = ['a', 'b'].map((queueName) => consumers.dequeue(queueName, one, never));
    const claims = [await store.claim(), await store.claim()];
    expect(store.claimsMade).toBe(1);
    takes.push(...['c', 'd'].map((queueName) => consumers.dequeue(queueName, one, never)));
    for (let turns = 0; turns < 5; turns += 1) await turn();
    expect(store.claimsMade).toBe(1);
    claims[1]?.bring(['2']);
    claims[0]?.bring(['1']);
    claims.push(await store.claim(), await store.claim());
    expect(store.claimsMade).toBe(2);
    expect(claims.map(({ queueName }) => queueName)).toEqual(['a', 'b', 'c', 'd']);
    claims[2]?.bring(['3']);
    claims[3]?.bring(['4']);
    expect((await Promise.all(takes)).map(bodies)).toEqual([['1'], ['2'], ['3'], ['4']]);
  });

  test('that is slow does not keep other queues waiting', async () => {
    const slow = consumers.dequeue('slow', one, never);
    const claim = await store.claim();
    const quick = consumers.dequeue('quick', one, never);
    vi.advanceTimersByTime(100);
    (await store.claim()).bring(['quick']);
    expect(bodies(await quick)).toEqual(['quick']);
    claim.bring(['slow']);
    expect(bodies(await slow)).toEqual(['slow']);
  });

  test('that could not begin for ten seconds is refused as overload, to all its consumers', async () => {
    consumers = newConsumers({ poolSize: 1 });
    const blocked = [consumers.dequeue('a', one, never)];
    const blocking = [await store.claim()];
    vi.advanceTimersByTime(100);
    blocked.push(consumers.dequeue('b', one, never));
    blocking.push(await store.claim());
    vi.advanceTimersByTime(100);
    const late = [consumers.dequeue('q', one, never), consumers.dequeue('q', { ...one, waitMs: 0 }, never)];
    await turn();
    vi.advanceTimersByTime(10_001);
    for (const claim of blocking) claim.bring(['x']);
    for (const refused of late) await expect(refused).rejects.toMatchObject({ code: 'overloaded' });
    expect((await Promise.all(blocked)).flatMap(bodies)).toEqual(['x', 'x']);
    expect(store.claimsMade).toBe(2);
  });

  test('divides its messages among its queues', async () => {
    const take = (queueName: string) => consumers.dequeue(queueName, { ...one, maxMessages: 100 }, never);
    const takes = Array.from({ length: 6 }, () => ['a', 'b'].map(take)).flat();
    const [a, b] = [await store.claim(), await store.claim()];
    expect([a.wanted, b.wanted]).toEqual([Array(5).fill(100), Array(5).fill(100)]);
    for (const claim of [a, b]) claim.bring(...Array.from({ length: 5 }, () => Array<string>(100).fill('x')));
    for (const claim of [await store.claim(), await store.claim()]) claim.bring(['y']);
    expect((await Promise.all(takes)).flatMap(bodies)).toHaveLength(1002);
  });

  test('is made for no more consumers than a batch may have', async () => {
    consumers = newConsumers({ batchRequests: 2 });
    const takes = [1, 2, 3].map((maxMessages) => consumers.dequeue('q', { ...one, maxMessages }, never));
    const claim = await store.claim();
    expect(claim.wanted).toEqual([1, 2]);
    claim.bring(['a'], ['b', 'c']);
    const next = await store.claim();
    expect(next.wanted).toEqual([3]);
    next.bring(['d']);
    expect((await Promise.all(takes)).map(bodies)).toEqual([['a'], ['b', 'c'], ['d']]);
  });

  test('is made for no more rows than a batch may have', async () => {
    const takes = Array.from({ length: 11 }, () => consumers.dequeue('q', { ...one, maxMessages: 100 }, never));
    const claim = await store.claim();
    expect(claim.wanted).toEqual(Array.from({ length: 10 }, () => 100));
    claim.bring(...Array.from({ length: 10 }, () => Array.from({ length: 100 }, () => 'x')));
    const next = await store.claim();
    expect(next.wanted).toEqual([100]);
    next.bring(['y']);
    await Promise.all(takes);
  });

  test('that only removed deliveries is repeated for a consumer that does not wait, but not for ever', async () => {
    const impatient = consumers.dequeue('q', { ...one, waitMs: 0 }, never);
    for (let repeat = 0; repeat < 2; repeat += 1) (await store.claim()).onlyRemove();
    (await store.claim()).bring(['behind it']);
    expect(bodies(await impatient)).toEqual(['behind it']);

    const hopeless = consumers.dequeue('q', { ...one, waitMs: 0 }, never);
    for (let repeat = 0; repeat < 5; repeat += 1) (await store.claim()).onlyRemove();
    expect(await hopeless).toEqual([]);
    expect(store.claimsMade).toBe(8);
  });
});

describe('a parked consumer', () => {
  test('gets a message when a poll finds one', async () => {
    const { waiting } = await parked();
    for (let polls = 0; polls < 3; polls += 1) await poll();
    expect(store.pollsMade).toBeGreaterThan(2);
    expect(store.claimsMade).toBe(1);
    store.ready.add('q');
    await poll();
    (await store.claim()).bring(['at last']);
    expect(bodies(await waiting)).toEqual(['at last']);
    expect(consumers.size).toBe(0);
  });

  test('gets a claim at most 250 ms after a message that the broker did not hear of becomes ready', async () => {
    const { waiting } = await parked();
    await vi.advanceTimersByTimeAsync(30_000);
    store.ready.add('q');
    await vi.advanceTimersByTimeAsync(250);
    for (let turns = 0; turns < 5; turns += 1) await turn();
    expect(store.claimsMade).toBe(2);
    (await store.claim()).bring(['due']);
    expect(bodies(await waiting)).toEqual(['due']);
  });

  test('goes on waiting when the message that a poll found is gone by the time of the claim', async () => {
    const { waiting } = await parked();
    store.ready.add('q');
    await poll();
    (await store.claim()).bring([]);
    await turn();
    await poll();
    (await store.claim()).bring(['the next']);
    expect(bodies(await waiting)).toEqual(['the next']);
  });

  test('makes no claim if others are parked already', async () => {
    const { waiting } = await parked();
    const others = Array.from({ length: 50 }, () => consumers.dequeue('q', one, never));
    await turn();
    expect(store.claimsMade).toBe(1);
    expect(consumers.size).toBe(51);
    consumers.wake('q', Infinity);
    const claim = await store.claim();
    expect(claim.wanted).toHaveLength(51);
    claim.bring(...Array.from({ length: 51 }, (_, place) => [String(place)]));
    expect((await Promise.all([waiting, ...others])).map((got) => bodies(got).join(''))).toEqual(
      Array.from({ length: 51 }, (_, place) => String(place)),
    );
  });

  test('gets a message first when a consumer that does not wait causes a claim', async () => {
    const { waiting } = await parked();
    const impatient = consumers.dequeue('q', { ...one, waitMs: 0 }, never);
    const claim = await store.claim();
    expect(claim.wanted).toEqual([1, 1]);
    claim.bring(['the only one'], []);
    expect(bodies(await waiting)).toEqual(['the only one']);
    expect(await impatient).toEqual([]);
  });

  test('gets another claim at once when it is woken during one, which may have been too early', async () => {
    const waiting = consumers.dequeue('q', one, never);
    const claim = await store.claim();
    consumers.wake('q', Infinity);
    claim.bring([]);
    (await store.claim()).bring(['seen']);
    expect(bodies(await waiting)).toEqual(['seen']);
    expect(store.pollsMade).toBe(0);
  });

  test('is not woken for other queues', async () => {
    const { waiting } = await parked('q', 100);
    consumers.wake('other', 1);
    await vi.advanceTimersByTimeAsync(100);
    expect(await waiting).toEqual([]);
    expect(store.claimsMade).toBe(1);
  });

  test('gets no message when its time is up', async () => {
    const { waiting } = await parked('q', 30);
    await vi.advanceTimersByTimeAsync(29);
    expect(consumers.size).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(await waiting).toEqual([]);
    expect(consumers.size).toBe(0);
    const polls = store.pollsMade;
    expect(polls).toBeGreaterThan(0);
    await vi.advanceTimersByTimeAsync(1000);
    await turn();
    expect(store.pollsMade).toBe(polls);
  });

  test('that leaves a queue to which nobody comes back leaves no timer behind', async () => {
    const { waiting } = await parked('q', 30);
    await vi.advanceTimersByTimeAsync(1000);
    expect(await waiting).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('is polled for as well if it comes to a queue that was forgotten', async () => {
    await parked('q', 30);
    await vi.advanceTimersByTimeAsync(1000);
    const { waiting } = await parked();
    store.ready.add('q');
    await vi.advanceTimersByTimeAsync(250);
    (await store.claim()).bring(['found']);
    expect(bodies(await waiting)).toEqual(['found']);
  });

  test('still gets a hand-off when a late poll wakes the forgotten list of the same queue', async () => {
    const { waiting, letGo } = await parkedDuringPoll();
    // Its claim fails, nobody waits any more, and the broker forgets the queue.
    const failed = consumers.dequeue('q', { ...one, waitMs: 0 }, never);
    (await store.claim()).fail(new Error('lost'));
    for (const take of [waiting, failed]) await expect(take).rejects.toThrow('lost');
    const { waiting: next } = await parked();
    letGo();
    await turn();
    const reservations = consumers.reserve(store.queue('q'), 1);
    expect(reservations).toHaveLength(1);
    reservations[0]?.handOff([delivery('handed off')]);
    expect(bodies(await next)).toEqual(['handed off']);
  });

  test('whose time is up while a claim is in flight still gets its messages', async () => {
    let ended = false;
    const waiting = consumers.dequeue('q', { ...one, waitMs: 10 }, never).finally(() => (ended = true));
    const claim = await store.claim();
    await vi.advanceTimersByTimeAsync(50);
    await turn();
    expect(ended).toBe(false);
    claim.bring(['just in time']);
    expect(bodies(await waiting)).toEqual(['just in time']);
  });

  test('whose time is up while a claim is in flight that brings nothing gets no other claim', async () => {
    const waiting = consumers.dequeue('q', { ...one, waitMs: 10 }, never);
    const claim = await store.claim();
    await vi.advanceTimersByTimeAsync(30);
    claim.onlyRemove();
    expect(await waiting).toEqual([]);
    expect(store.claimsMade).toBe(1);
    expect(consumers.size).toBe(0);
  });

  test('that hangs up while a claim is in flight returns its messages, for the caller to release', async () => {
    const consumer = new AbortController();
    const waiting = consumers.dequeue('q', one, consumer.signal);
    const other = consumers.dequeue('q', one, never);
    const claim = await store.claim();
    consumer.abort();
    claim.bring(['claimed for nobody'], ['for the other']);
    expect(bodies(await waiting)).toEqual(['claimed for nobody']);
    expect(bodies(await other)).toEqual(['for the other']);
  });

  test('that hangs up before its claim starts is not in it', async () => {
    const consumer = new AbortController();
    const hungUp = consumers.dequeue('q', { ...one, maxMessages: 50 }, consumer.signal);
    const other = consumers.dequeue('q', one, never);
    consumer.abort();
    expect(await hungUp).toEqual([]);
    const claim = await store.claim();
    expect(claim.wanted).toEqual([1]);
    claim.bring(['2']);
    expect(bodies(await other)).toEqual(['2']);
  });

  test('that hangs up between claims gets no other claim', async () => {
    const consumer = new AbortController();
    const { waiting } = await parked('q', LONG, consumer.signal);
    consumer.abort();
    expect(await waiting).toEqual([]);
    consumers.wake('q', Infinity);
    await turn();
    expect(store.claimsMade).toBe(1);
    expect(consumers.size).toBe(0);
  });

  test('that has hung up already causes no claim', async () => {
    expect(await consumers.dequeue('q', one, AbortSignal.abort())).toEqual([]);
    await turn();
    expect(store.claimsMade).toBe(0);
  });

  test('gets no claim while the queue is paused, and one soon after it is resumed', async () => {
    store.paused.add('q');
    store.ready.add('q');
    expect(await consumers.dequeue('q', { ...one, waitMs: 0 }, never)).toEqual([]);
    const short = consumers.dequeue('q', { ...one, waitMs: 80 }, never);
    const waiting = consumers.dequeue('q', one, never);
    await turn();
    await poll();
    expect(await short).toEqual([]);
    expect(consumers.size).toBe(1);
    expect(store.claimsMade).toBe(0);
    store.paused.delete('q');
    await poll();
    (await store.claim()).bring(['resumed']);
    expect(bodies(await waiting)).toEqual(['resumed']);
  });
});

test('a consumer gets a claim although its queue was resumed while the broker read its older settings', async () => {
  store.paused.add('q');
  store.resumed.add('q');
  vi.spyOn(store.queues, 'get').mockImplementationOnce(async (name) => {
    consumers.resumed(name);
    return store.queue(name);
  });
  const waiting = consumers.dequeue('q', one, never);
  (await store.claim()).bring(['resumed']);
  expect(bodies(await waiting)).toEqual(['resumed']);
});

describe('a failed claim or poll', () => {
  test('fails the consumers of the claim; the others go on', async () => {
    const served = [consumers.dequeue('q', one, never), consumers.dequeue('q', one, never)];
    const claim = await store.claim();
    const later = consumers.dequeue('q', one, never);
    claim.fail(new RowmqError('database-unavailable', 'gone'));
    for (const take of served) await expect(take).rejects.toMatchObject({ code: 'database-unavailable' });
    (await store.claim()).bring(['for the later one']);
    expect(bodies(await later)).toEqual(['for the later one']);
    expect(consumers.size).toBe(0);
  });

  test('because of one queue fails the consumers of that queue only', async () => {
    store.paused.add('paused');
    const paused = consumers.dequeue('paused', { ...one, waitMs: 0 }, never);
    const [good, bad] = ['a', 'b'].map((queueName) => consumers.dequeue(queueName, one, never));
    const odd = new Error('odd');
    const [first] = [await store.claim(), await store.claim()];
    expect(await paused).toEqual([]);
    first.fail(odd);
    (await store.claim()).bring(['a']);
    (await store.claim()).fail(odd);
    await expect(bad).rejects.toThrow('odd');
    expect(bodies((await good) as LeasedMessage[])).toEqual(['a']);
    expect(store.claimsMade).toBe(3);
  });

  test('is made up for by the next poll', async () => {
    const { waiting } = await parked();
    store.failures = 2;
    for (let polls = 0; polls < 2; polls += 1) await poll();
    expect(store.failures).toBe(0);
    store.ready.add('q');
    await poll();
    (await store.claim()).bring(['after all']);
    expect(bodies(await waiting)).toEqual(['after all']);
  });

  test('because the queue does not exist fails every consumer of it', async () => {
    store.gone.add('q');
    await expect(consumers.dequeue('q', one, never)).rejects.toMatchObject({ code: 'queue-not-found' });
    await expect(consumers.dequeue('q', { ...one, waitMs: 0 }, never)).rejects.toMatchObject({
      code: 'queue-not-found',
    });
  });

  test('because the queue was deleted meanwhile ends every wait', async () => {
    const { waiting } = await parked();
    const others = [consumers.dequeue('q', one, never), consumers.dequeue('q', one, never)];
    store.gone.add('q');
    void poll();
    for (const take of [waiting, ...others]) await expect(take).rejects.toMatchObject({ code: 'queue-not-found' });
    expect(consumers.size).toBe(0);
  });
});

describe('the consumers that wait', () => {
  test('are as many as the setting says, and one more is refused', async () => {
    consumers = newConsumers({ maxLongPolls: 2 });
    const waits = [consumers.dequeue('q', one, never), consumers.dequeue('q', one, never)];
    const refused = { code: 'overloaded', retryAfterSeconds: 1 };
    await expect(consumers.dequeue('q', one, never)).rejects.toMatchObject(refused);
    (await store.claim()).bring(['1'], ['2']);
    await Promise.all(waits);
    const later = consumers.dequeue('q', one, never);
    (await store.claim()).bring(['3']);
    expect(bodies(await later)).toEqual(['3']);
  });

  test('in a queue with less than its share take the place of the last one of the queue with the most', async () => {
    consumers = newConsumers({ maxLongPolls: 4 });
    const [first, ...flood] = [1, 2, 3, 4].map(() => consumers.dequeue('flood', one, never));
    const claim = await store.claim();
    expect(claim.demands).toHaveLength(4);
    claim.bring();
    await turn();
    const others = [consumers.dequeue('other', one, never), consumers.dequeue('other', one, never)];
    // The latest of the flood hear that there is no message, as at the end of their time.
    expect(await Promise.all(flood.slice(1))).toEqual([[], []]);
    for (const queue of ['other', 'flood'])
      await expect(consumers.dequeue(queue, one, never)).rejects.toMatchObject({ code: 'overloaded' });
    (await store.claim()).bring(['a'], ['b']);
    expect((await Promise.all(others)).flatMap(bodies)).toEqual(['a', 'b']);
    consumers.wake('flood', 2);
    (await store.claim()).bring(['1'], ['2']);
    expect((await Promise.all([first!, flood[0]!])).flatMap(bodies)).toEqual(['1', '2']);
  });

  test('leave room for consumers that do not wait, which is bounded as well', async () => {
    consumers = newConsumers({ maxLongPolls: 2, maxWaitingRequests: 3 });
    const takes = [consumers.dequeue('q', one, never), consumers.dequeue('q', one, never)];
    for (let more = 0; more < 3; more += 1) takes.push(consumers.dequeue('q', { ...one, waitMs: 0 }, never));
    await expect(consumers.dequeue('q', { ...one, waitMs: 0 }, never)).rejects.toMatchObject({ code: 'overloaded' });
    (await store.claim()).bring(['1'], ['2'], ['3'], ['4'], ['5']);
    expect((await Promise.all(takes)).flatMap(bodies)).toEqual(['1', '2', '3', '4', '5']);
  });

  test('are let go by a stop, except those with a claim in flight, and nobody waits afterwards', async () => {
    const { waiting } = await parked('other');
    const served = consumers.dequeue('q', one, never);
    const claim = await store.claim();
    const idle = consumers.dequeue('q', one, never);
    consumers.beforeApplicationShutdown();
    expect(await idle).toEqual([]);
    expect(await waiting).toEqual([]);
    claim.bring(['the last']);
    expect(bodies(await served)).toEqual(['the last']);
    expect(await consumers.dequeue('q', one, never)).toEqual([]);
    expect(consumers.size).toBe(0);
  });

  test('without a message from a claim that ends during a stop are let go as well', async () => {
    const served = consumers.dequeue('q', one, never);
    const claim = await store.claim();
    consumers.beforeApplicationShutdown();
    claim.onlyRemove();
    expect(await served).toEqual([]);
    expect(store.claimsMade).toBe(1);
  });
});

describe('a hand-off', () => {
  test('gives messages to parked consumers without a claim, and counts them', async () => {
    const metrics = new Metrics({ metricsQueues: 200 });
    consumers = new WaitingConsumers(store.messages, store.queues, metrics, CONFIG, NO_PEERS, noLimits(), noPressure());
    const { waiting } = await parked();
    const [reservation] = consumers.reserve(store.queue('q'), 2);
    reservation?.handOff([delivery('handed off')]);
    expect(bodies(await waiting)).toEqual(['handed off']);
    expect(consumers.size).toBe(0);
    expect(await metrics.text()).toContain('rowmq_messages_total{event="handed-off",queue="q"} 1');
    const next = consumers.dequeue('q', one, never);
    await turn();
    consumers.reserve(store.queue('q'), 1)[0]?.handOff([delivery('again')]);
    expect(bodies(await next)).toEqual(['again']);
    expect(store.claimsMade).toBe(1);
  });

  test('reserves nobody of a queue for which nobody ever waited', () => {
    expect(consumers.reserve(store.queue('q'), 5)).toEqual([]);
  });

  test('keeps a consumer whose time is up, or that hangs up, until its outcome is known', async () => {
    const consumer = new AbortController();
    const late = await parked('q', 30);
    const hungUp = consumers.dequeue('q', one, consumer.signal);
    const both = consumers.reserve(store.queue('q'), 2);
    let ended = 0;
    for (const taken of [late.waiting, hungUp]) void taken.finally(() => (ended += 1));
    await vi.advanceTimersByTimeAsync(50);
    consumer.abort();
    await turn();
    expect([ended, consumers.size]).toEqual([0, 2]);
    both[0]?.cancel();
    both[1]?.handOff([delivery('for a release')]);
    expect(bodies(await late.waiting)).toEqual([]);
    expect(bodies(await hungUp)).toEqual(['for a release']);
  });

  test('is waited for by a stop, which lets the consumer go when it is cancelled', async () => {
    const { waiting } = await parked();
    const other = consumers.dequeue('q', one, never);
    const idle = consumers.dequeue('q', one, never);
    const both = consumers.reserve(store.queue('q'), 2);
    consumers.beforeApplicationShutdown();
    expect(await idle).toEqual([]);
    expect(consumers.size).toBe(2);
    both[0]?.handOff([delivery('the last')]);
    both[1]?.cancel();
    expect(bodies(await waiting)).toEqual(['the last']);
    expect(await other).toEqual([]);
    expect(store.claimsMade).toBe(1);
  });

  test('is no longer made once a poll has found a message that the broker did not hear of', async () => {
    const { waiting } = await parked();
    store.ready.add('q');
    await vi.advanceTimersByTimeAsync(20);
    const claim = await store.claim();
    const newcomer = consumers.dequeue('q', one, never);
    expect(consumers.reserve(store.queue('q'), 1)).toEqual([]);
    store.ready.delete('q');
    claim.bring(['found']);
    (await store.claim()).bring([]);
    await turn();
    expect(consumers.reserve(store.queue('q'), 1)).toHaveLength(1);
    expect(bodies(await waiting)).toEqual(['found']);
    consumers.beforeApplicationShutdown();
    void newcomer;
  });

  test('is no longer made after 20 ms without a consumer that waits, and the next consumer needs a claim', async () => {
    const { waiting } = await parked();
    consumers.reserve(store.queue('q'), 1)[0]?.handOff([delivery('1')]);
    await waiting;
    await vi.advanceTimersByTimeAsync(20);
    const next = consumers.dequeue('q', one, never);
    expect(consumers.reserve(store.queue('q'), 1)).toEqual([]);
    (await store.claim()).bring(['2']);
    expect(bodies(await next)).toEqual(['2']);
  });
});

describe('peers', () => {
  let heard: string[];
  beforeEach(() => {
    heard = [];
    consumers = new WaitingConsumers(
      store.messages,
      store.queues,
      new Metrics({ metricsQueues: 200 }),
      CONFIG,
      {
        wake: (queueName, messages) => heard.push(`${messages} in ${queueName}`),
        parked: (queueName) => heard.push(`parked at ${queueName}`),
      },
      noLimits(),
      noPressure(),
    );
  });

  test('hear of messages that became ready here while nobody waits', () => {
    consumers.wake('q', 2);
    expect(heard).toEqual(['2 in q']);
  });

  test('hear of a hint that came when nobody waits here any more', () => {
    consumers.wakeFromPeer('q', 3);
    expect(heard).toEqual(['3 in q']);
  });

  test('hear of parked consumers, and their hint causes a claim that looks everywhere', async () => {
    expect(consumers.parkedQueues()).toEqual([]);
    const { waiting } = await parked();
    expect(heard).toEqual(['parked at q']);
    expect(consumers.parkedQueues()).toEqual(['q']);
    expect(store.expected).toEqual([]);
    consumers.wakeFromPeer('q', 1);
    expect(consumers.parkedQueues()).toEqual([]);
    const claim = await store.claim();
    expect(store.expected).toEqual([1]);
    claim.bring(['of a peer']);
    expect(bodies(await waiting)).toEqual(['of a peer']);
    expect(heard).toEqual(['parked at q']);
  });

  test('tell of the end of a pause, of which the settings here do not know yet', async () => {
    store.paused.add('q');
    const waiting = consumers.dequeue('q', one, never);
    await turn();
    expect(heard).toEqual(['parked at q']);
    consumers.wakeFromPeer('q', Infinity);
    await turn();
    expect(heard).toEqual(['parked at q', 'parked at q']);
    expect(store.claimsMade).toBe(0);
    store.resumed.add('q');
    consumers.wakeFromPeer('q', Infinity);
    (await store.claim()).bring(['resumed']);
    expect(bodies(await waiting)).toEqual(['resumed']);
  });

  test('are told again of consumers whose hint was in vain', async () => {
    const { waiting } = await parked();
    consumers.wakeFromPeer('q', 1);
    (await store.claim()).bring([]);
    await turn();
    expect(heard).toEqual(['parked at q', 'parked at q']);
    consumers.beforeApplicationShutdown();
    expect(await waiting).toEqual([]);
  });
});
