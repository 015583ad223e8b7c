import { PACK_MESSAGES, newPackId } from '@rowmq/contract';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { groupBy } from '../group-by.js';
import { copyOf, type Delivery, type Fate, GONE, MOST_COPIES, oneCopyOfEach, partOf, split } from './delivery.js';
import { LEASE_GRACE_MS, NO_TOKEN } from './delivery.sql.js';
import { bitOf, common, firstMembers, has, indexesOf, lowestMember, type Members, union, without } from './members.js';
import { moveTo } from './move.js';

/*
 * The algebra of splits. The verbs run on a table in memory, which has the primary key of the real
 * one. Beside it, a list holds the state that each message must have by itself. Several holders act
 * at random. Each message that is not settled must be owed by exactly one row, in its own state.
 *
 * Each pack was published to two queues, whose messages also move from one to the other. So the two
 * copies of a message often meet in one queue. No receipt may stand for both.
 */

const QUEUES = [1, 2];
/** The numbers of the two copies: the highest has the highest names. */
const COPIES = [0, MOST_COPIES - 1];
const PACKS = [newPackId(), newPackId()];
const START = 1_000_000;
const LIFE_MS = 50_000;

/** The state of one message, as a text that is quick to compare. */
function stateOf({ queueId: queue, leaseToken, availableAt, receiveCount, nackReason }: State): string {
  return `queue ${queue} token ${leaseToken.toString('hex')} at ${availableAt} received ${receiveCount} ${nackReason}`;
}
type State = Pick<Delivery, 'queueId' | 'leaseToken' | 'availableAt' | 'receiveCount' | 'nackReason'>;
const SETTLED = 'settled';

class Table {
  private readonly rows = new Map<string, Delivery>();

  all(): Delivery[] {
    return [...this.rows.values()];
  }

  /** As `rewrite` in delivery.sql.ts: deletes by key, then inserts. */
  rewrite(before: readonly Delivery[], after: readonly Delivery[]): void {
    for (const row of before) {
      if (!this.rows.delete(keyOf(row))) throw new Error(`no row ${keyOf(row)} to delete`);
    }
    for (const row of after) {
      if (this.rows.has(keyOf(row))) throw new Error(`two rows ${keyOf(row)}`);
      if (row.members === 0) throw new Error(`row ${keyOf(row)} owes nothing`);
      this.rows.set(keyOf(row), { ...row });
    }
  }

  /** As the statements of `settle` in receipts.ts: the row keeps its name. */
  clear(row: Delivery, members: Members): void {
    const left = without(row.members, members);
    if (left === 0) this.rows.delete(keyOf(row));
    else this.rows.set(keyOf(row), { ...row, members: left });
  }
}

function keyOf({ queueId, packId, leaseToken, part }: Delivery): string {
  return `${queueId} ${packId.toString('hex')} ${leaseToken.toString('hex')} ${part}`;
}

/** Members of one pack, chosen by a holder: any, also ones that are not owed or not its own. */
const mask: fc.Arbitrary<Members> = fc.oneof(
  fc.integer({ min: 1, max: 0xff_ff_ff_ff }),
  fc.integer({ min: 0, max: 31 }).map(bitOf),
  fc.constant(0xff_ff_ff_ff),
);
const shares = fc.array(fc.record({ mask, seconds: fc.constantFrom(1, 2, 30) }), { minLength: 1, maxLength: 3 });
/** The number of the lease, counted back from the last. */
const holder = fc.constantFrom(0, 0, 0, 1, 1, 2, 3, 5, 8);
const pack = fc.constantFrom(0, 0, 0, 1);
const queueId = fc.constantFrom(...QUEUES);
const does = <const Verb extends string>(verb: Verb): fc.Arbitrary<Verb> => fc.constant(verb);
const change = fc.record({
  mask,
  to: fc.constantFrom('nack' as const, 'extend' as const, 'release' as const, 'reject' as const),
  seconds: fc.constantFrom(0, 1, 5),
});

const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ does: does('claim'), queueId, shares, most: fc.integer({ min: 1, max: 40 }) }) },
  { weight: 4, arbitrary: fc.record({ does: does('ack'), holder, pack, mask }) },
  {
    weight: 5,
    arbitrary: fc.record({
      does: does('change'),
      holder,
      pack,
      changes: fc.array(change, { minLength: 1, maxLength: 3 }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ does: does('move'), queueId, mask }) },
  { weight: 1, arbitrary: fc.record({ does: does('remove'), queueId, nth: fc.nat(7) }) },
  { weight: 4, arbitrary: fc.record({ does: does('wait'), ms: fc.constantFrom(1, 250, 500, 1000, 2000, 40_000) }) },
);
type Step = typeof step extends fc.Arbitrary<infer One> ? One : never;

/** How the messages of a pack start: the fate of each, by number. */
const enqueued = fc.array(fc.nat(2), { minLength: 1, maxLength: PACK_MESSAGES, size: 'max' });

class World {
  now = START;
  readonly table = new Table();
  /** The state that each message must have. */
  readonly states = new Map<string, string>();
  readonly tokens: Buffer[] = [];
  /** Number of rows that were replaced by more than one. */
  splits = 0;
  /** The number of times that both copies of a pack were in one queue. */
  meetings = 0;

  constructor(packs: readonly (readonly number[])[]) {
    for (const [at, fates] of packs.entries()) {
      const members = new Map<number, Members>();
      for (const [index, fate] of fates.entries()) {
        members.set(fate, union(members.get(fate) ?? 0, bitOf(index)));
      }
      const copies = QUEUES.flatMap((queue, copy) =>
        Array.from(members, ([fate, of]) => ({ queueId: queue, copy, fate, of })),
      );
      const rows = copies.map(({ queueId: to, copy, fate, of }): Delivery => ({
        queueId: to,
        packId: PACKS[at] as Buffer,
        leaseToken: NO_TOKEN,
        part: partOf(COPIES[copy] as number, of),
        members: of,
        priorityRank: 5,
        availableAt: this.now + fate * 1000,
        expiresAt: this.now + LIFE_MS,
        producerExpiresAt: null,
        receiveCount: 0,
        firstReceivedAt: null,
        nackReason: null,
        groupKey: null,
        delayedUntil: null,
        sourceQueueId: null,
        moves: null,
      }));
      this.table.rewrite([], rows);
      for (const row of rows) {
        for (const index of indexesOf(row.members)) this.states.set(nameOf(row, index), stateOf(row));
      }
    }
  }

  take(one: Step): void {
    switch (one.does) {
      case 'claim':
        return this.claim(one);
      case 'ack':
        return this.ack(one);
      case 'change':
        return this.change(one);
      case 'move':
        return this.move(one);
      case 'remove': {
        const row = this.unleased(one.queueId)[one.nth];
        if (row !== undefined) this.replace(new Map([[row, new Map<Fate, Members>([[GONE, row.members]])]]));
        return undefined;
      }
      case 'wait':
        this.now += one.ms;
        return undefined;
    }
  }

  /** Leases members of available rows under a new token: a part of each, for several consumers. */
  private claim({ queueId: from, shares: wanted, most }: Extract<Step, { does: 'claim' }>): void {
    const leaseToken = Buffer.alloc(8);
    leaseToken.writeUInt32BE(this.tokens.length + 1, 4);
    this.tokens.push(leaseToken);
    const fates = new Map<Delivery, Map<Fate, Members>>();
    for (const row of oneCopyOfEach(this.unleased(from).slice(0, most))) {
      const ofRow = new Map<Fate, Members>();
      for (const { mask: members, seconds } of wanted) {
        const availableAt = this.now + seconds * 1000 + LEASE_GRACE_MS;
        ofRow.set({ leaseToken, availableAt, receiveCount: row.receiveCount + 1 }, members);
      }
      fates.set(row, ofRow);
    }
    this.replace(fates);
  }

  private ack({ holder: nth, pack: at, mask: members }: Extract<Step, { does: 'ack' }>): void {
    for (const row of this.held(nth, at)) {
      this.table.clear(row, members);
      for (const index of indexesOf(common(row.members, members))) this.states.set(nameOf(row, index), SETTLED);
    }
  }

  /** Nacks, extends, releases and rejects of one lease in one batch. */
  private change({ holder: nth, pack: at, changes }: Extract<Step, { does: 'change' }>): void {
    const fates = this.held(nth, at).map((row): [Delivery, Map<Fate, Members>] => [
      row,
      new Map(changes.map(({ mask: members, ...to }) => [this.fateOf(row, to), members])),
    ]);
    this.replace(new Map(fates));
  }

  private fateOf(row: Delivery, { to, seconds }: { to: string; seconds: number }): Fate {
    if (to === 'extend') return { availableAt: this.now + seconds * 1000 + LEASE_GRACE_MS };
    if (to === 'reject')
      return moveTo({ id: other(row.queueId), messageTtlSeconds: 60 }, row, this.now, 'rejected', 'rejected');
    const availableAt = this.now + seconds * 1000;
    if (to === 'nack') return { leaseToken: NO_TOKEN, availableAt, nackReason: 'nacked' };
    return { leaseToken: NO_TOKEN, availableAt: this.now, receiveCount: row.receiveCount - 1 };
  }

  /** Dead-letters or redrives members of all rows without a lease. */
  private move({ queueId: from, mask: members }: Extract<Step, { does: 'move' }>): void {
    const target = { id: other(from), messageTtlSeconds: 60 };
    this.replace(
      new Map(
        this.unleased(from).map((row): [Delivery, Map<Fate, Members>] => [
          row,
          new Map([[moveTo(target, row, this.now, 'redriven'), members]]),
        ]),
      ),
    );
  }

  /** Rows that no lease protects. */
  private unleased(from: number): Delivery[] {
    return this.table.all().filter(({ queueId: of, availableAt }) => of === from && availableAt <= this.now);
  }

  /** Rows under a lease whose deadline has not passed. */
  private held(nth: number, at: number): Delivery[] {
    const token = this.tokens.at(-1 - nth);
    if (token === undefined) return [];
    return this.table
      .all()
      .filter(
        ({ packId, leaseToken, availableAt }) =>
          packId.equals(PACKS[at] as Buffer) && leaseToken.equals(token) && availableAt - LEASE_GRACE_MS > this.now,
      );
  }

  private replace(fates: ReadonlyMap<Delivery, ReadonlyMap<Fate, Members>>): void {
    const after: Delivery[] = [];
    for (const [row, ofRow] of fates) {
      const rows = split(row, ofRow);
      if (rows.length > 1) this.splits += 1;
      after.push(...rows);
      this.expectFates(row, ofRow);
    }
    this.table.rewrite([...fates.keys()], after);
  }

  /** Notes the state that each message must have afterwards, one by one. */
  private expectFates(row: Delivery, fates: ReadonlyMap<Fate, Members>): void {
    for (const index of indexesOf(row.members)) {
      let last: Fate = {};
      for (const [fate, members] of fates) if (has(members, index)) last = fate;
      this.states.set(nameOf(row, index), last === GONE ? SETTLED : stateOf({ ...row, ...(last as object) }));
    }
  }

  /**
   * Every copy of a message is owed once, in its own state, or it is settled and owed by no row. No
   * lease holds two copies.
   */
  check(): void {
    const found = new Map<string, string>();
    const copies = new Map<string, number>();
    for (const row of this.table.all()) {
      for (const index of indexesOf(row.members)) {
        const name = nameOf(row, index);
        if (found.has(name)) throw new Error(`message ${name} is owed twice`);
        found.set(name, stateOf(row));
      }
      if (row.leaseToken.equals(NO_TOKEN)) continue;
      const lease = keyOf({ ...row, part: 0 });
      const copy = copyOf(row.part);
      if ((copies.get(lease) ?? copy) !== copy) throw new Error(`lease ${lease} holds two copies`);
      copies.set(lease, copy);
    }
    const places = groupBy(this.table.all(), ({ queueId: of, packId }) => `${of} ${packId.toString('hex')}`);
    for (const rows of places.values()) if (new Set(rows.map(({ part }) => copyOf(part))).size > 1) this.meetings += 1;
    for (const [message, state] of this.states) {
      const stored = found.get(message) ?? SETTLED;
      if (stored !== state) throw new Error(`message ${message}: ${stored}, and it should be ${state}`);
      found.delete(message);
    }
    if (found.size > 0) throw new Error(`${[...found.keys()].join(', ')} is owed and was never enqueued`);
  }
}

/** The name of one copy of a message. */
function nameOf({ packId, part }: Delivery, index: number): string {
  return `${PACKS.findIndex((id) => id.equals(packId))}.${copyOf(part)}.${index}`;
}

function other(queue: number): number {
  return QUEUES.find((one) => one !== queue) as number;
}

test('no history of splits, acks, leases and moves owes a copy of a message twice or not at all, or lets keys or receipts collide', () => {
  let splits = 0;
  let meetings = 0;
  fc.assert(
    fc.property(
      fc.noBias(fc.tuple(enqueued, enqueued)),
      fc.noBias(fc.array(step, { minLength: 5, maxLength: 60, size: 'max' })),
      (packs, steps) => {
        const world = new World(packs);
        for (const one of steps) {
          world.take(one);
          world.check();
        }
        splits += world.splits;
        meetings += world.meetings;
      },
    ),
    { numRuns: 300 },
  );
  // Histories without splits and without meetings of copies would pass too.
  expect(splits).toBeGreaterThan(1000);
  expect(meetings).toBeGreaterThan(1000);
});

const anyRow = fc
  .record({ members: fc.integer({ min: 1, max: 0xff_ff_ff_ff }), part: fc.nat(2 ** 16 - 1) })
  .map(({ members, part }): Delivery => ({
    queueId: 1,
    packId: PACKS[0] as Buffer,
    leaseToken: Buffer.alloc(8, 7),
    part,
    members,
    priorityRank: 3,
    availableAt: 10,
    expiresAt: 20,
    producerExpiresAt: 20,
    receiveCount: 1,
    firstReceivedAt: null,
    nackReason: null,
    groupKey: null,
    delayedUntil: null,
    sourceQueueId: null,
    moves: null,
  }));

test('a split shares a delivery’s members out, and names each row after its copy and lowest member', () => {
  fc.assert(
    fc.property(anyRow, fc.array(mask, { maxLength: 5 }), (row, masks) => {
      const fates = new Map<Fate, Members>(masks.map((members, at) => [{ availableAt: 100 + at }, members]));
      let owed = 0;
      for (const { members, part, availableAt, ...rest } of split(row, fates)) {
        expect(common(owed, members)).toBe(0);
        owed = union(owed, members);
        expect(part).toBe(copyOf(row.part) * PACK_MESSAGES + lowestMember(members));
        const wanted = masks[availableAt - 100] ?? without(firstMembers(32), masks.reduce(union, 0));
        expect(without(members, wanted)).toBe(0);
        const { members: _, part: __, availableAt: ___, ...kept } = row;
        expect(rest).toEqual(kept);
      }
      expect(owed).toBe(row.members);
    }),
  );
});

const firstCopy = anyRow.map((row): Delivery => ({ ...row, part: row.part % PACK_MESSAGES }));

test('a split leaves out the members that are gone, and members that the delivery does not owe', () => {
  const [row] = fc.sample(firstCopy, 1) as [Delivery];
  const before = { ...row, members: 0b0111 };
  const fates = new Map<Fate, Members>([
    [GONE, 0b1001],
    [{ availableAt: 99 }, 0b1010],
  ]);
  expect(split(before, fates)).toEqual([
    { ...before, availableAt: 99, members: 0b0010, part: 1 },
    { ...before, members: 0b0100, part: 2 },
  ]);
});

test('a delivery keeps its members if no fate wants one of them', () => {
  const [row] = fc.sample(firstCopy, 1) as [Delivery];
  const before = { ...row, members: 0b0110, part: 0 };
  expect(split(before, new Map<Fate, Members>([[{ availableAt: 99 }, 0b1001]]))).toEqual([{ ...before, part: 1 }]);
});

test('members that get fates of equal values share a row, also if several requests gave them', () => {
  const [row] = fc.sample(firstCopy, 1) as [Delivery];
  const before = { ...row, members: 0b1111_1111 };
  const nack = (availableAt: number) => ({ leaseToken: Buffer.from(NO_TOKEN), availableAt });
  const fates = new Map<Fate, Members>([
    [nack(99), 0b0000_0010],
    [nack(100), 0b0000_0100],
    [nack(99), 0b1000_0000],
  ]);
  expect(split(before, fates)).toEqual([
    { ...before, ...nack(99), members: 0b1000_0010, part: 1 },
    { ...before, ...nack(100), members: 0b0000_0100, part: 2 },
    { ...before, members: 0b0111_1001, part: 0 },
  ]);
});
