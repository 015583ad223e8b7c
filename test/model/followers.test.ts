import { LEASE_GRACE_MS, type LeasedMessage, type Queue } from '@rowmq/store';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';
import { claimFrom } from '../support/claim-from.js';
import { timeLimitMs } from './time-limit.js';

/*
 * Random histories of one group, as SQS receives from it, on the store and on a list of messages.
 * A receive walks the list and stops at the first message that is in flight.
 */

const RUNS = Number(process.env['ROWMQ_MODEL_RUNS'] ?? 25);
const START = 1_800_000_000_000;
const MAX_RECEIVES = 4;
const GROUP = 'g';

/** Messages that share a lease, or none. They were sent together. */
interface Row {
  messages: number[];
  receives: number;
  /** The receive that leased it last. */
  receive: number | null;
  /** Nobody else gets it before. */
  until: number;
}

/** A message that a receive hands out, its receive count and the end of its lease. */
type Handed = [message: number, receives: number, leaseExpiresAt: number];

/** A FIFO group. */
class Group {
  now = START;
  dead: number[] = [];
  private rows: Row[] = [];
  private receives = 0;
  private sent = 0;

  /** The messages that are owed, in order. */
  get owed(): number[] {
    return this.rows.flatMap(({ messages }) => messages);
  }

  send(count: number): number[] {
    const messages = Array.from({ length: count }, () => (this.sent += 1));
    this.rows.push({ messages, receives: 0, receive: null, until: 0 });
    return messages;
  }

  /** Returns the number of the receive, and its messages. */
  receive(room: number, leaseSeconds: number): { receive: number; handed: Handed[] } {
    const receive = (this.receives += 1);
    while (this.rows[0] !== undefined && this.isFree(this.rows[0]) && this.rows[0].receives >= MAX_RECEIVES)
      this.dead.push(...(this.rows.shift() as Row).messages);
    const until = this.now + leaseSeconds * 1000 + LEASE_GRACE_MS;
    const handed: Handed[] = [];
    for (let nth = 0; nth < this.rows.length && handed.length < room; nth += 1) {
      const row = this.rows[nth] as Row;
      if (!this.isFree(row) || row.receives >= MAX_RECEIVES) break;
      const [taken, rest] = cut(row, room - handed.length);
      const leased = { ...taken, receives: row.receives + 1, receive, until };
      this.rows.splice(nth, 1, ...[leased, rest].filter(isSome));
      for (const one of taken.messages) handed.push([one, leased.receives, until - LEASE_GRACE_MS]);
    }
    return { receive, handed };
  }

  /** Returns whether the receipt is valid, as all verbs do. */
  delete(receive: number, one: number): boolean {
    const row = this.heldRow(receive, one);
    if (row === undefined) return false;
    row.messages = row.messages.filter((other) => other !== one);
    this.rows = this.rows.filter(isSome);
    return true;
  }

  /** Holds all messages that share the lease. */
  extend(receive: number, one: number, seconds: number): boolean {
    const row = this.heldRow(receive, one);
    if (row !== undefined) row.until = this.now + seconds * 1000 + LEASE_GRACE_MS;
    return row !== undefined;
  }

  /** A nack. Later messages that share the lease are released. */
  nack(receive: number, one: number, seconds: number): boolean {
    const row = this.heldRow(receive, one);
    if (row === undefined) return false;
    const [before, from] = cut(row, row.messages.indexOf(one));
    const [named, later] = cut({ ...from, receive: null }, 1);
    const given = { ...named, until: this.now + seconds * 1000 };
    const undone = { ...later, until: this.now, receives: row.receives - 1 };
    this.rows.splice(this.rows.indexOf(row), 1, ...[before, given, undone].filter(isSome));
    return true;
  }

  /** Undoes a receive whose consumer hung up. */
  release(receive: number): void {
    this.rows = this.rows.map((row) =>
      this.isHeld(row, receive) ? { ...row, receives: row.receives - 1, receive: null, until: this.now } : row,
    );
  }

  private heldRow(receive: number, one: number): Row | undefined {
    return this.rows.find((row) => this.isHeld(row, receive) && row.messages.includes(one));
  }

  private isHeld({ receive: by, until }: Row, receive: number): boolean {
    return by === receive && until - LEASE_GRACE_MS > this.now;
  }

  private isFree({ until }: Row): boolean {
    return until <= this.now;
  }
}

function cut(row: Row, count: number): [first: Row, rest: Row] {
  return [
    { ...row, messages: row.messages.slice(0, count) },
    { ...row, messages: row.messages.slice(count) },
  ];
}

function isSome({ messages }: Row): boolean {
  return messages.length > 0;
}

type Step =
  | { verb: 'send'; count: number }
  | { verb: 'receive'; room: number; leaseSeconds: number }
  /** `back`: which of the last receives. `nth`: which of its messages. */
  | { verb: 'delete' | 'extend' | 'nack'; back: number; nth: number; seconds: number }
  | { verb: 'release'; back: number }
  | { verb: 'wait'; ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ verb: fc.constant('send' as const), count: fc.constantFrom(1, 1, 1, 2, 5) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      verb: fc.constant('receive' as const),
      room: fc.integer({ min: 1, max: 10 }),
      leaseSeconds: fc.constantFrom(1, 3, 60),
    }),
  },
  {
    weight: 12,
    arbitrary: fc.record({
      verb: fc.constantFrom<'delete' | 'extend' | 'nack'>('delete', 'delete', 'extend', 'nack', 'nack'),
      back: fc.constantFrom(0, 0, 0, 1, 2),
      nth: fc.constantFrom(0, 0, 1, 2, 3, 5),
      seconds: fc.constantFrom(0, 0, 0, 2, 9),
    }),
  },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant('release' as const), back: fc.nat(2) }) },
  {
    weight: 4,
    arbitrary: fc.record({ verb: fc.constant('wait' as const), ms: fc.constantFrom(100, 1250, 3300, 60_000) }),
  },
);

let store: TestStore;

beforeAll(async () => {
  store = await openStore();
});
afterAll(() => store.close());

/** One history, with any number of consumers. */
class History {
  readonly group = new Group();
  /** Receives that got messages. */
  private readonly receives: { receive: number; leases: LeasedMessage[] }[] = [];

  constructor(
    private readonly queue: Queue,
    private readonly dead: Queue,
  ) {}

  async run(one: Step): Promise<void> {
    const { group, queue } = this;
    const { messages } = store.at(group.now);
    switch (one.verb) {
      case 'wait':
        group.now += one.ms;
        return;
      case 'send': {
        const bodies = group.send(one.count).map((number) => Buffer.from(String(number)));
        await messages.enqueue(
          queue.name,
          bodies.map((body) => message({ body, groupId: GROUP })),
        );
        return;
      }
      case 'receive':
        await this.receive(one.room, one.leaseSeconds);
        return;
      case 'release': {
        const received = this.receives.at(-1 - one.back);
        if (received === undefined) return;
        await messages.release(queue.id, received.leases);
        group.release(received.receive);
        return;
      }
      default:
        await this.useReceipt(one);
    }
  }

  private async receive(room: number, leaseSeconds: number): Promise<void> {
    const { group } = this;
    const owed = group.owed;
    const { receive, handed } = group.receive(room, leaseSeconds);
    const leased = await this.claimAndFollow(room, leaseSeconds);
    const got = leased.map(({ body, receiveCount, leaseExpiresAt }) => [
      Number(String(body)),
      receiveCount,
      leaseExpiresAt,
    ]);
    expect(got, 'a receive hands out what the list does').toEqual(handed);
    const alive = owed.filter((one) => !group.dead.includes(one));
    expect(
      got.map(([number]) => number),
      'nothing is passed over',
    ).toEqual(alive.slice(0, got.length));
    if (leased.length > 0) this.receives.push({ receive, leases: leased });
  }

  /** Claims as long as messages go to the dead-letter queue. */
  private async claimAndFollow(room: number, leaseSeconds: number): Promise<LeasedMessage[]> {
    const { batches } = store.at(this.group.now).messages;
    for (;;) {
      const { leased, claimAgain } = await claimFrom(batches, this.queue, [{ maxMessages: room, leaseSeconds }]);
      const [first = []] = leased;
      const isAgain = await claimAgain;
      if (first.length === 0 && isAgain) continue;
      return [...first, ...(await batches.follow(this.queue, first, room - first.length))];
    }
  }

  private async useReceipt({
    verb,
    back,
    nth,
    seconds,
  }: Extract<Step, { verb: 'delete' | 'extend' | 'nack' }>): Promise<void> {
    const received = this.receives.at(-1 - back);
    if (received === undefined) return;
    const { group, queue } = this;
    const { receive, leases } = received;
    const lease = leases[nth % leases.length] as LeasedMessage;
    const { messages } = store;
    const number = Number(String(lease.body));
    const verbs = {
      delete: async () => [await messages.ackInOrder(queue.id, [lease]), group.delete(receive, number)] as const,
      extend: async () =>
        [
          (await messages.extend(queue.id, [lease], { leaseSeconds: seconds + 1 })).outcomes,
          group.extend(receive, number, seconds + 1),
        ] as const,
      nack: async () =>
        [
          await messages.nack(queue.id, [lease], { delaySeconds: seconds }),
          group.nack(receive, number, seconds),
        ] as const,
    };
    const [[outcome], isValid] = await verbs[verb]();
    expect(outcome === null, `${verb} of ${number}`).toBe(isValid);
  }

  /** Receives and deletes all that is left. Nothing is lost, and the group is gone. */
  async end(): Promise<void> {
    const { group, queue, dead } = this;
    for (group.now += 3_600_000; group.owed.length > 0; group.now += 1) {
      const before = this.receives.length;
      await this.receive(10, 60);
      for (const { receive, leases } of this.receives.slice(before)) {
        for (const { body } of leases) group.delete(receive, Number(String(body)));
        expect(await store.messages.ackInOrder(queue.id, leases)).toEqual(leases.map(() => null));
      }
    }
    const rows = await store.database.read<{ queueId: number; messages: string }>(
      'SELECT queue_id AS queueId, SUM(BIT_COUNT(members)) AS messages FROM delivery WHERE queue_id IN (?) GROUP BY queue_id',
      [[queue.id, dead.id]],
    );
    const left = rows.map(({ queueId, messages }) => [queueId, Number(messages)]);
    expect(left).toEqual(group.dead.length > 0 ? [[dead.id, group.dead.length]] : []);
    expect(await store.database.read('SELECT * FROM message_group WHERE queue_id = ?', [queue.id])).toEqual([]);
  }
}

it(
  'a receive gets the messages of a group that a list gives, in random histories',
  async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 40, maxLength: 100, size: 'max' }), async (steps) => {
        const dead = await createQueue(store, { ordering: 'group' });
        const queue = await createQueue(store, {
          ordering: 'group',
          deadLetterQueue: dead.name,
          maxReceives: MAX_RECEIVES,
        });
        const history = new History(queue, dead);
        for (const one of steps) await history.run(one);
        await history.end();
      }),
      { numRuns: RUNS, endOnFailure: true },
    );
  },
  timeLimitMs(RUNS),
);
