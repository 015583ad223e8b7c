import { setMaxListeners } from 'node:events';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { RowmqError } from '@rowmq/contract';
import {
  type DequeueOutcome,
  type DequeueRequest,
  type LeasedDelivery,
  type MessageRepository,
  type Queue,
  queueNotFound,
  type QueueRepository,
} from '@rowmq/store';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { Metrics } from '../metrics/metrics.js';
import { CombinedDemand } from './combined-demand.js';

const LONG = 60_000;
const never = new AbortController().signal;
setMaxListeners(0, never);
const one = { maxMessages: 1, leaseSeconds: undefined, waitMs: LONG };
const CONFIG = { poolSize: 16, flightRequests: 1000, maxWaitingRequests: 100, maxLongPolls: 100 };

const delivery = (body: string): LeasedDelivery => ({
  messageId: Buffer.alloc(16),
  leaseToken: Buffer.alloc(8),
  body: Buffer.from(body),
  headers: null,
  priority: 4,
  receiveCount: 1,
  expiresAt: 0,
  leaseExpiresAt: 0,
});
const bodies = (deliveries: LeasedDelivery[]): string[] => deliveries.map(({ body }) => body.toString());

/** A claim that is under way, to be answered by the test. */
class HandClaim {
  constructor(
    readonly requests: readonly DequeueRequest[],
    private readonly resolve: (outcomes: DequeueOutcome[]) => void,
    readonly fail: (error: Error) => void,
  ) {}

  /** Queues it is made for. */
  get queues(): string[] {
    return this.requests.map(({ queue }) => queue.name);
  }

  /** What it is to bring to each consumer, queue by queue. */
  get wanted(): number[][] {
    return this.requests.map(({ demands }) => demands.map(({ maxMessages }) => maxMessages));
  }

  /** Brings the consumers of its first queue these bodies, and nobody else anything. */
  bring(...shares: string[][]): void {
    this.answer([shares]);
  }

  answer(shares: string[][][], lookAgain = false): void {
    this.resolve(
      this.requests.map(({ demands }, place) => ({
        leased: demands.map((_, index) => (shares[place]?.[index] ?? []).map(delivery)),
        lookAgain: Promise.resolve(lookAgain),
      })),
    );
  }
}

/** A store whose claims are answered by the test, one by one and when it likes: what a database cannot be told to do. */
class StoreByHand {
  readonly paused = new Set<string>();
  readonly gone = new Set<string>();
  /** Queues that a look finds something in. */
  readonly ready = new Set<string>();
  /** Looks that are still to fail. */
  failures = 0;
  claimsMade = 0;
  looksMade = 0;
  private readonly ids = new Map<string, number>();
  private readonly underWay: HandClaim[] = [];
  private readonly awaited: ((claim: HandClaim) => void)[] = [];

  readonly messages = {
    dequeue: async (requests: readonly DequeueRequest[]) => {
      if (requests.length === 0) return [];
      this.claimsMade += 1;
      return new Promise<DequeueOutcome[]>((resolve, reject) => {
        const claim = new HandClaim(requests, resolve, reject);
        const waiting = this.awaited.shift();
        if (waiting) waiting(claim);
        else this.underWay.push(claim);
      });
    },
    look: async (queueIds: readonly number[]) => {
      this.looksMade += 1;
      if (this.failures > 0) {
        this.failures -= 1;
        throw new RowmqError('database-unavailable', 'gone');
      }
      const found = [...this.ids].filter(([name, id]) => this.ready.has(name) && queueIds.includes(id));
      return new Set(found.map(([, id]) => id));
    },
  } as unknown as MessageRepository;

  readonly queues = {
    get: async (name: string) => {
      if (this.gone.has(name)) throw queueNotFound(name);
      return this.queue(name);
    },
    getAll: async (names: readonly string[]) =>
      new Map(names.filter((name) => !this.gone.has(name)).map((name) => [name, this.queue(name)])),
  } as unknown as QueueRepository;

  /** The next claim, when it has begun. */
  async claim(): Promise<HandClaim> {
    return this.underWay.shift() ?? new Promise((resolve) => this.awaited.push(resolve));
  }

  private queue(name: string): Queue {
    const id = this.ids.get(name) ?? this.ids.size + 1;
    this.ids.set(name, id);
    return { id, name, leaseSeconds: 30, paused: this.paused.has(name) } as Queue;
  }
}

let store: StoreByHand;
let demand: CombinedDemand;

function newDemand(config: Partial<typeof CONFIG> = {}): CombinedDemand {
  return new CombinedDemand(store.messages, store.queues, new Metrics(), { ...CONFIG, ...config });
}

beforeEach(() => {
  store = new StoreByHand();
  demand = newDemand();
  return () => demand.beforeApplicationShutdown();
});

/** A consumer that waits, on a queue that was found empty. */
async function parked(queueName = 'q', waitMs = LONG, signal = never): Promise<{ waiting: Promise<LeasedDelivery[]> }> {
  const waiting = demand.take(queueName, { ...one, waitMs }, signal);
  (await store.claim()).bring([]);
  await turn();
  return { waiting };
}

describe('a claim', () => {
  test('is one for all who want something, and serves them in the order in which they came', async () => {
    const served: string[] = [];
    const takes = [2, 1, 3].map(async (maxMessages, place) => {
      const leased = await demand.take('q', { ...one, maxMessages }, never);
      served.push(`${place}: ${bodies(leased).join(' ')}`);
    });
    const claim = await store.claim();
    expect(claim.wanted).toEqual([[2, 1, 3]]);
    claim.bring(['a', 'b'], ['c'], ['d']);
    await Promise.all(takes);
    expect(served).toEqual(['0: a b', '1: c', '2: d']);
    expect(store.claimsMade).toBe(1);
  });

  test('takes leases of different lengths, the queue’s where none was asked for', async () => {
    const takes = [undefined, 5, 300].map((leaseSeconds) => demand.take('q', { ...one, leaseSeconds }, never));
    const claim = await store.claim();
    expect(claim.requests[0]?.demands.map(({ leaseSeconds }) => leaseSeconds)).toEqual([30, 5, 300]);
    claim.bring(['a'], ['b'], ['c']);
    await Promise.all(takes);
  });

  test('leaves those who come while it is under way to the next', async () => {
    const first = demand.take('q', one, never);
    const claim = await store.claim();
    const second = demand.take('q', { ...one, maxMessages: 7 }, never);
    await turn();
    expect(store.claimsMade).toBe(1);
    claim.bring(['1']);
    const next = await store.claim();
    expect(next.wanted).toEqual([[7]]);
    next.bring(['2']);
    expect([bodies(await first), bodies(await second)]).toEqual([['1'], ['2']]);
  });

  test('that brings too little leaves those who got nothing ahead of those who came later', async () => {
    const early = [demand.take('q', one, never), demand.take('q', { ...one, maxMessages: 5 }, never)];
    const claim = await store.claim();
    const late = demand.take('q', { ...one, maxMessages: 9 }, never);
    claim.bring(['1'], []);
    const next = await store.claim();
    expect(next.wanted).toEqual([[5, 9]]);
    next.bring(['2'], ['3']);
    expect((await Promise.all([...early, late])).map(bodies)).toEqual([['1'], ['2'], ['3']]);
  });

  test('is made for several queues at once', async () => {
    const takes = ['a', 'b', 'c'].map((queueName) => demand.take(queueName, one, never));
    const claim = await store.claim();
    expect(claim.queues).toEqual(['a', 'b', 'c']);
    claim.answer([[['1']], [['2']], [['3']]]);
    expect((await Promise.all(takes)).map(bodies)).toEqual([['1'], ['2'], ['3']]);
  });

  test('is made for no more consumers than a flight may have', async () => {
    demand = newDemand({ flightRequests: 2 });
    const takes = [1, 2, 3].map((maxMessages) => demand.take('q', { ...one, maxMessages }, never));
    const claim = await store.claim();
    expect(claim.wanted).toEqual([[1, 2]]);
    claim.bring(['a'], ['b']);
    const next = await store.claim();
    expect(next.wanted).toEqual([[3]]);
    next.bring(['c']);
    expect((await Promise.all(takes)).map(bodies)).toEqual([['a'], ['b'], ['c']]);
  });

  test('is made for no more rows than a flight may have', async () => {
    const takes = Array.from({ length: 11 }, () => demand.take('q', { ...one, maxMessages: 100 }, never));
    const claim = await store.claim();
    expect(claim.wanted).toEqual([Array.from({ length: 10 }, () => 100)]);
    claim.bring(...Array.from({ length: 10 }, () => ['x']));
    const next = await store.claim();
    expect(next.wanted).toEqual([[100]]);
    next.bring(['y']);
    await Promise.all(takes);
  });

  test('of several queues has no more rows than a flight may have, though their consumers came while it waited', async () => {
    demand = newDemand({ poolSize: 4 });
    const first = demand.take('first', one, never);
    const blocking = await store.claim();
    const queueNames = ['a', 'b', 'c', 'd', 'e'];
    const takes = queueNames.map((queueName) => demand.take(queueName, one, never));
    await turn();
    for (const queueName of queueNames) {
      for (let more = 0; more < 9; more += 1) takes.push(demand.take(queueName, { ...one, maxMessages: 100 }, never));
    }
    blocking.bring(['x']);
    await first;
    for (let left = takes.length; left > 0;) {
      const claim = await store.claim();
      const rows = claim.wanted.flat();
      expect(rows.reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(1000);
      left -= rows.length;
      claim.answer(claim.wanted.map((demands) => demands.map(() => ['x'])));
    }
    await Promise.all(takes);
  });

  test('that only removed what stood in the way is made again for who does not wait, but not for ever', async () => {
    const impatient = demand.take('q', { ...one, waitMs: 0 }, never);
    for (let look = 0; look < 2; look += 1) (await store.claim()).answer([], true);
    (await store.claim()).bring(['behind it']);
    expect(bodies(await impatient)).toEqual(['behind it']);

    const hopeless = demand.take('q', { ...one, waitMs: 0 }, never);
    for (let look = 0; look < 5; look += 1) (await store.claim()).answer([], true);
    expect(await hopeless).toEqual([]);
    expect(store.claimsMade).toBe(8);
  });
});

describe('a wait', () => {
  test('ends when a look finds that there is something', async () => {
    const { waiting } = await parked();
    const looks = store.looksMade;
    await expect.poll(() => store.looksMade).toBeGreaterThan(looks + 2);
    expect(store.claimsMade).toBe(1);
    store.ready.add('q');
    (await store.claim()).bring(['at last']);
    expect(bodies(await waiting)).toEqual(['at last']);
    expect(demand.size).toBe(0);
  });

  test('ends at most 250 ms after a message becomes ready of which nobody told the broker', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    try {
      const { waiting } = await parked();
      await vi.advanceTimersByTimeAsync(30_000);
      store.ready.add('q');
      await vi.advanceTimersByTimeAsync(250);
      for (let turns = 0; turns < 5; turns += 1) await turn();
      expect(store.claimsMade).toBe(2);
      (await store.claim()).bring(['due']);
      expect(bodies(await waiting)).toEqual(['due']);
    } finally {
      vi.useRealTimers();
    }
  });

  test('goes on when what a look found is gone by the time of the claim', async () => {
    const { waiting } = await parked();
    store.ready.add('q');
    (await store.claim()).bring([]);
    (await store.claim()).bring(['the next']);
    expect(bodies(await waiting)).toEqual(['the next']);
  });

  test('costs no claim when others wait already', async () => {
    const { waiting } = await parked();
    const others = Array.from({ length: 50 }, () => demand.take('q', one, never));
    await turn();
    expect(store.claimsMade).toBe(1);
    expect(demand.size).toBe(51);
    demand.wake('q');
    const claim = await store.claim();
    expect(claim.wanted[0]).toHaveLength(51);
    claim.bring(...Array.from({ length: 51 }, (_, place) => [String(place)]));
    expect((await Promise.all([waiting, ...others])).map((got) => bodies(got).join(''))).toEqual(
      Array.from({ length: 51 }, (_, place) => String(place)),
    );
  });

  test('of those who do not wait leads to a claim at once, which those who waited before them profit from first', async () => {
    const { waiting } = await parked();
    const impatient = demand.take('q', { ...one, waitMs: 0 }, never);
    const claim = await store.claim();
    expect(claim.wanted).toEqual([[1, 1]]);
    claim.bring(['the only one'], []);
    expect(bodies(await waiting)).toEqual(['the only one']);
    expect(await impatient).toEqual([]);
  });

  test('leads to another claim at once when it is woken during one, as that may have been too early', async () => {
    const waiting = demand.take('q', one, never);
    const claim = await store.claim();
    demand.wake('q');
    claim.bring([]);
    (await store.claim()).bring(['seen']);
    expect(bodies(await waiting)).toEqual(['seen']);
    expect(store.looksMade).toBe(0);
  });

  test('is not woken by what happens in other queues', async () => {
    const { waiting } = await parked('q', 100);
    demand.wake('other');
    expect(await waiting).toEqual([]);
    expect(store.claimsMade).toBe(1);
  });

  test('ends with nothing when its time is up', async () => {
    const { waiting } = await parked('q', 30);
    expect(await waiting).toEqual([]);
    expect(demand.size).toBe(0);
    const looks = store.looksMade;
    await sleep(60);
    expect(store.looksMade).toBe(looks);
  });

  test('whose time is up while a claim is under way still gets what that brings', async () => {
    let ended = false;
    const waiting = demand.take('q', { ...one, waitMs: 10 }, never).finally(() => (ended = true));
    const claim = await store.claim();
    await sleep(50);
    expect(ended).toBe(false);
    claim.bring(['just in time']);
    expect(bodies(await waiting)).toEqual(['just in time']);
  });

  test('whose time is up while a claim is under way that brings nothing ends without another', async () => {
    const waiting = demand.take('q', { ...one, waitMs: 10 }, never);
    const claim = await store.claim();
    await sleep(30);
    claim.answer([], true);
    expect(await waiting).toEqual([]);
    expect(store.claimsMade).toBe(1);
    expect(demand.size).toBe(0);
  });

  test('whose consumer hangs up while a claim is under way hands on what that brings, to be given back', async () => {
    const consumer = new AbortController();
    const waiting = demand.take('q', one, consumer.signal);
    const other = demand.take('q', one, never);
    const claim = await store.claim();
    consumer.abort();
    claim.bring(['claimed for nobody'], ['for the other']);
    expect(bodies(await waiting)).toEqual(['claimed for nobody']);
    expect(bodies(await other)).toEqual(['for the other']);
  });

  test('whose consumer hangs up before its claim took off is not in it', async () => {
    demand = newDemand({ poolSize: 4 });
    const first = demand.take('first', one, never);
    const blocking = await store.claim();
    const consumer = new AbortController();
    const hungUp = demand.take('q', { ...one, maxMessages: 50 }, consumer.signal);
    const other = demand.take('q', one, never);
    consumer.abort();
    expect(await hungUp).toEqual([]);
    blocking.bring(['1']);
    await first;
    const claim = await store.claim();
    expect(claim.wanted).toEqual([[1]]);
    claim.bring(['2']);
    expect(bodies(await other)).toEqual(['2']);
  });

  test('whose consumer hangs up between claims ends without another', async () => {
    const consumer = new AbortController();
    const { waiting } = await parked('q', LONG, consumer.signal);
    consumer.abort();
    expect(await waiting).toEqual([]);
    demand.wake('q');
    await turn();
    expect(store.claimsMade).toBe(1);
    expect(demand.size).toBe(0);
  });

  test('does not begin for a consumer who has hung up already', async () => {
    expect(await demand.take('q', one, AbortSignal.abort())).toEqual([]);
    await turn();
    expect(store.claimsMade).toBe(0);
  });

  test('leads to no claim while the queue is paused, and ends soon after it is resumed', async () => {
    store.paused.add('q');
    store.ready.add('q');
    expect(await demand.take('q', { ...one, waitMs: 0 }, never)).toEqual([]);
    expect(await demand.take('q', { ...one, waitMs: 80 }, never)).toEqual([]);
    const waiting = demand.take('q', one, never);
    await expect.poll(() => demand.size).toBe(1);
    expect(store.claimsMade).toBe(0);
    store.paused.delete('q');
    (await store.claim()).bring(['resumed']);
    expect(bodies(await waiting)).toEqual(['resumed']);
  });
});

describe('a failure', () => {
  test('hits those whom the claim was made for; the others go on', async () => {
    const served = [demand.take('q', one, never), demand.take('q', one, never)];
    const claim = await store.claim();
    const later = demand.take('q', one, never);
    claim.fail(new RowmqError('database-unavailable', 'gone'));
    for (const take of served) await expect(take).rejects.toMatchObject({ code: 'database-unavailable' });
    (await store.claim()).bring(['for the later one']);
    expect(bodies(await later)).toEqual(['for the later one']);
    expect(demand.size).toBe(0);
  });

  test('that lies in one queue hits its consumers only', async () => {
    const [good, bad, alsoGood] = ['a', 'b', 'c'].map((queueName) => demand.take(queueName, one, never));
    const outcome = bad?.catch((error: unknown) => error);
    for (;;) {
      const claim = await store.claim();
      if (claim.queues.includes('b')) claim.fail(new Error('odd'));
      else claim.answer(claim.queues.map((queueName) => [[queueName]]));
      if (claim.queues.includes('c') && !claim.queues.includes('b')) break;
    }
    expect(bodies((await good) as LeasedDelivery[])).toEqual(['a']);
    expect(bodies((await alsoGood) as LeasedDelivery[])).toEqual(['c']);
    expect(String(await outcome)).toBe('Error: odd');
  });

  test('of a look is made up for by the next', async () => {
    const { waiting } = await parked();
    store.failures = 2;
    await expect.poll(() => store.failures).toBe(0);
    store.ready.add('q');
    (await store.claim()).bring(['after all']);
    expect(bodies(await waiting)).toEqual(['after all']);
  });

  test('to find the queue is told to everybody who waits for it', async () => {
    store.gone.add('q');
    await expect(demand.take('q', one, never)).rejects.toMatchObject({ code: 'queue-not-found' });
    await expect(demand.take('q', { ...one, waitMs: 0 }, never)).rejects.toMatchObject({ code: 'queue-not-found' });
  });

  test('to find it because it was deleted meanwhile ends every wait', async () => {
    const { waiting } = await parked();
    const others = [demand.take('q', one, never), demand.take('q', one, never)];
    store.gone.add('q');
    for (const take of [waiting, ...others]) await expect(take).rejects.toMatchObject({ code: 'queue-not-found' });
    expect(demand.size).toBe(0);
  });
});

describe('those who wait', () => {
  test('are as many as the setting says, and one more is refused', async () => {
    demand = newDemand({ maxLongPolls: 2 });
    const waits = [demand.take('q', one, never), demand.take('q', one, never)];
    const refused = { code: 'overloaded', retryAfterSeconds: 1 };
    await expect(demand.take('other', one, never)).rejects.toMatchObject(refused);
    (await store.claim()).bring(['1'], ['2']);
    await Promise.all(waits);
    const later = demand.take('q', one, never);
    (await store.claim()).bring(['3']);
    expect(bodies(await later)).toEqual(['3']);
  });

  test('leave room for those who do not wait, which is bounded as well', async () => {
    demand = newDemand({ maxLongPolls: 2, maxWaitingRequests: 3 });
    const takes = [demand.take('q', one, never), demand.take('q', one, never)];
    for (let more = 0; more < 3; more += 1) takes.push(demand.take('q', { ...one, waitMs: 0 }, never));
    await expect(demand.take('q', { ...one, waitMs: 0 }, never)).rejects.toMatchObject({ code: 'overloaded' });
    (await store.claim()).bring(['1'], ['2'], ['3'], ['4'], ['5']);
    expect((await Promise.all(takes)).flatMap(bodies)).toEqual(['1', '2', '3', '4', '5']);
  });

  test('are let go by a stop, but for those whom a claim is under way for, who get it; nobody waits afterwards', async () => {
    const served = demand.take('q', one, never);
    const claim = await store.claim();
    const idle = demand.take('q', one, never);
    const { waiting } = await parked('other');
    demand.beforeApplicationShutdown();
    expect(await idle).toEqual([]);
    expect(await waiting).toEqual([]);
    claim.bring(['the last']);
    expect(bodies(await served)).toEqual(['the last']);
    expect(await demand.take('q', one, never)).toEqual([]);
    expect(demand.size).toBe(0);
  });

  test('whom a claim brings nothing during a stop are let go as well', async () => {
    const served = demand.take('q', one, never);
    const claim = await store.claim();
    demand.beforeApplicationShutdown();
    claim.answer([], true);
    expect(await served).toEqual([]);
    expect(store.claimsMade).toBe(1);
  });
});
