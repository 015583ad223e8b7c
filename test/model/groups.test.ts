import { formatMessageId } from '@rowmq/contract';
import {
  type Code,
  type Delivery,
  LeaseProtocol,
  type Receipt as ProtocolReceipt,
  type Settings,
} from '@rowmq/client/testing';
import { type EnqueuedMessage, FIRST_ID, type LeasedMessage, type Queue, type Reservation } from '@rowmq/store';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';
import { timeLimitMs } from './time-limit.js';

/*
 * Random histories of one ordered queue, on the store and on the lease protocol. The protocol
 * leaves open how many messages of a group a dequeue hands out. They must be the first ones.
 */

const RUNS = Number(process.env['ROWMQ_MODEL_RUNS'] ?? 25);
const START = 1_800_000_000_000;

type Step =
  | {
      verb: 'enqueue';
      groups: number[];
      delaySeconds: 0 | undefined;
      expiresInSeconds: number | undefined;
      waiting: number[];
    }
  | { verb: 'dequeue'; maxMessages: number; leaseSeconds: number }
  | { verb: 'ack' | 'nack' | 'release' | 'extend' | 'reject'; which: number; seconds: number }
  | { verb: 'cancel'; which: number }
  | { verb: 'purge' | 'expire' }
  | { verb: 'wait'; ms: number };

const receiptVerb = fc.record({
  verb: fc.constantFrom<'ack' | 'nack' | 'release' | 'extend' | 'reject'>(
    'ack',
    'ack',
    'nack',
    'release',
    'extend',
    'reject',
  ),
  which: fc.nat(30),
  seconds: fc.constantFrom(0, 0, 2, 9),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      verb: fc.constant('enqueue' as const),
      groups: fc.array(fc.nat(2), { minLength: 1, maxLength: 5 }),
      /** A message may only ask for no delay. */
      delaySeconds: fc.constantFrom(undefined, undefined, undefined, 0 as const),
      expiresInSeconds: fc.constantFrom(undefined, undefined, 4, 30),
      /** Consumers who wait for so many messages each. */
      waiting: fc.oneof(fc.constant<number[]>([]), fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 3 })),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      verb: fc.constant('dequeue' as const),
      maxMessages: fc.integer({ min: 1, max: 6 }),
      leaseSeconds: fc.constantFrom(1, 3, 60),
    }),
  },
  { weight: 10, arbitrary: receiptVerb },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant('cancel' as const), which: fc.nat(30) }) },
  {
    weight: 1,
    arbitrary: fc.record({ verb: fc.constantFrom('purge' as const, 'expire' as const, 'expire' as const) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ verb: fc.constant('wait' as const), ms: fc.constantFrom(100, 1250, 3300, 10_000) }),
  },
);

/** The settings of the queue. */
const settingsOfQueue = fc.record({
  delaySeconds: fc.constantFrom(0, 0, 1, 3),
  deadLetterExpired: fc.constantFrom(false, false, true),
});

let store: TestStore;

beforeAll(async () => {
  store = await openStore();
});
afterAll(() => store.close());

/** One history. */
class History {
  now = START;
  private readonly protocol: LeaseProtocol;
  /** Every message that was sent. */
  private readonly sent: Buffer[] = [];
  private readonly leases: LeasedMessage[] = [];

  constructor(
    private readonly queue: Queue,
    private readonly dead: Queue,
  ) {
    const settings: Settings = {
      delaySeconds: queue.delaySeconds,
      messageTtlSeconds: queue.messageTtlSeconds,
      maxReceives: null,
      deadLetterQueue: dead.name,
      deadLetterExpired: queue.deadLetterExpired,
      maxDepth: null,
      ordering: 'group',
    };
    const queues = new Map([
      [queue.name, settings],
      [dead.name, { ...settings, delaySeconds: 0, deadLetterQueue: null, deadLetterExpired: false }],
    ]);
    this.protocol = new LeaseProtocol(queues, START);
  }

  async run(one: Step): Promise<void> {
    const { queue, protocol } = this;
    protocol.now = this.now;
    const { messages } = store.at(this.now);
    // A claim would move the expired messages that it meets, and the protocol does not know which.
    if (queue.deadLetterExpired) await this.expire();
    switch (one.verb) {
      case 'wait':
        this.now += one.ms;
        return;
      case 'enqueue':
        return this.enqueue(one);
      case 'dequeue':
        return this.dequeue(one.maxMessages, one.leaseSeconds);
      case 'expire':
        return this.expire();
      case 'purge': {
        for (let left = 1; left > 0;)
          ({ left } = await store.unleased.purge(queue.id, FIRST_ID, Buffer.alloc(16, 255), 1000));
        // The clock stands still, so nothing is about to run out.
        protocol.purge(queue.name);
        return;
      }
      case 'cancel': {
        const id = this.sent[one.which % this.sent.length];
        if (id === undefined) return;
        const code = protocol.cancel(formatMessageId(id));
        const done = messages.batches.cancel(id, [queue.id, this.dead.id]);
        if (code === null) await done;
        else await expect(done).rejects.toMatchObject({ code });
        return;
      }
      default:
        return this.useReceipt(one.verb, one.which, one.seconds);
    }
  }

  /** The reaper's duty, in both queues. */
  private async expire(): Promise<void> {
    this.protocol.expire();
    const { messages, unleased } = store.at(this.now);
    for (const queue of [this.queue, this.dead]) {
      const { found } = await unleased.findExpired(queue.id, FIRST_ID, 1000);
      if (queue.deadLetterExpired) await messages.batches.deadLetterExpired(queue, found);
      else await messages.expire(queue.id, found);
    }
  }

  private async enqueue({
    groups,
    delaySeconds,
    expiresInSeconds,
    waiting,
  }: Step & { verb: 'enqueue' }): Promise<void> {
    const wanted = groups.map((group) => message({ groupId: `g${group}`, delaySeconds, expiresInSeconds }));
    const busy = new Set(this.protocol.in(this.queue.name).map(({ groupId }) => groupId));
    const handedOff: LeasedMessage[][] = [];
    const reserve = (): Reservation[] =>
      waiting.map((maxMessages) => ({
        maxMessages,
        leaseSeconds: 3,
        handOff: (leased) => {
          expect(leased.length).toBeLessThanOrEqual(maxMessages);
          handedOff.push(leased);
        },
        cancel: () => undefined,
      }));
    const requests = [{ queueName: this.queue.name, messages: wanted }];
    const [outcome] = await store.messages.batches.enqueueInOrder(requests, { reserve });
    const ids = (outcome as EnqueuedMessage[]).map(({ id }) => id);
    this.sent.push(...ids);
    const drafts = this.protocol.draft(
      this.queue.name,
      ids.map((id, index) => ({
        id: formatMessageId(id),
        body: '',
        priority: 4,
        delaySeconds,
        expiresInSeconds,
        groupId: wanted[index]?.groupId,
      })),
    );
    this.protocol.store(drafts as Delivery[], null);
    for (const leased of handedOff) this.take(leased, 3);
    const left = this.protocol
      .in(this.queue.name)
      .filter((one) => !busy.has(one.groupId) && this.protocol.isReady(one));
    expect(left.length > 0 && handedOff.length < waiting.length, 'a consumer waits for a ready message').toBe(false);
  }

  private async dequeue(maxMessages: number, leaseSeconds: number): Promise<void> {
    const leased = await store.messages.dequeue(this.queue, { maxMessages, leaseSeconds });
    const ready = this.protocol.in(this.queue.name).filter((one) => this.protocol.isReady(one));
    expect(leased.length > 0, 'it hands out messages if some are ready').toBe(ready.length > 0);
    this.take(leased, leaseSeconds);
  }

  /** The messages that one consumer gets. */
  private take(leased: readonly LeasedMessage[], leaseSeconds: number): void {
    const ready = this.protocol.in(this.queue.name).filter((one) => this.protocol.isReady(one));
    for (const groupId of new Set(ready.map((one) => one.groupId))) {
      const firstOnes = ready
        .filter((one) => one.groupId === groupId)
        .map(({ id }) => id)
        .toSorted();
      const got = leased.filter((one) => one.groupId === groupId).map(({ messageId }) => formatMessageId(messageId));
      expect(got, 'the first ready ones of the group, in order').toEqual(firstOnes.slice(0, got.length));
    }
    for (const one of leased) {
      const owed = this.protocol.owed.get(formatMessageId(one.messageId)) as Delivery;
      expect(ready).toContain(owed);
      this.protocol.lease(owed, one.leaseToken.toString('hex'), this.now + leaseSeconds * 1000);
      expect(one.receiveCount).toBe(owed.receiveCount);
    }
    this.leases.push(...leased);
  }

  private async useReceipt(
    verb: 'ack' | 'nack' | 'release' | 'extend' | 'reject',
    which: number,
    seconds: number,
  ): Promise<void> {
    // Recent leases are more interesting.
    const lease = this.leases.at(-1 - (which % Math.max(1, this.leases.length)));
    if (lease === undefined) return;
    const { queue, protocol } = this;
    const receipt: ProtocolReceipt = {
      queue: queue.name,
      id: formatMessageId(lease.messageId),
      token: lease.leaseToken.toString('hex'),
    };
    const request = { queueId: queue.id, receipts: [lease] };
    const { batches } = store.messages;
    const verbs: Record<typeof verb, () => Promise<[(string | null)[], Code | null]>> = {
      ack: async () => [(await batches.ackInOrder([request]))[0] ?? [], protocol.ack(receipt)],
      nack: async () => [
        (await batches.nack([{ ...request, delaySeconds: seconds }]))[0] ?? [],
        protocol.nack(receipt, seconds),
      ],
      release: async () => [
        (await batches.release([{ ...request, delaySeconds: seconds }]))[0] ?? [],
        protocol.release(receipt, seconds),
      ],
      extend: async () => [
        (await batches.extend([{ ...request, leaseSeconds: seconds + 1 }]))[0]?.outcomes ?? [],
        protocol.extend(receipt, seconds + 1),
      ],
      reject: async () => [await batches.reject(request), protocol.reject(receipt)],
    };
    const isExpired = (protocol.owed.get(receipt.id)?.expiresAt ?? Infinity) <= this.now;
    const [outcomes, code] = await verbs[verb]();
    // A claim removes the expired messages that it meets. The protocol keeps them until it must.
    const codes = isExpired && code === 'lease-lost' ? [code, 'delivery-not-found'] : [code];
    expect(codes, verb).toContain(outcomes[0]);
  }

  /** The store owes what the protocol owes, and no group is left without messages. */
  async check(): Promise<void> {
    this.protocol.now = this.now;
    await this.expire();
    for (const queue of [this.queue, this.dead]) {
      const { ready, delayed, leased, waiting } = await store.at(this.now).browse.stats(queue.id);
      expect(ready + delayed + leased + waiting).toBe(this.protocol.in(queue.name).length);
      const groups = await store.database.read<{ n: number }>(
        'SELECT COUNT(*) AS n FROM message_group WHERE queue_id = ?',
        [queue.id],
      );
      const owing = new Set(this.protocol.in(queue.name).map(({ groupId }) => groupId));
      expect(Number(groups[0]?.n)).toBe(owing.size);
    }
  }
}

it(
  'an ordered queue does what the lease protocol says, in random histories',
  async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), settingsOfQueue, async (steps, settings) => {
        const dead = await createQueue(store, { ordering: 'group' });
        const queue = await createQueue(store, { ordering: 'group', deadLetterQueue: dead.name, ...settings });
        const history = new History(queue, dead);
        for (const one of steps) await history.run(one);
        await history.check();
      }),
      { numRuns: RUNS, endOnFailure: true },
    );
  },
  timeLimitMs(RUNS),
);
