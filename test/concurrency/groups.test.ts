import { setTimeout as sleep } from 'node:timers/promises';
import { RowmqError } from '@rowmq/contract';
import type { LeasedMessage, Queue, Reservation } from '@rowmq/store';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { countDeadlocks, expectNoDeadlock } from '../support/deadlocks.js';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';
import { isLong } from './length.js';

/*
 * Ordered queues under attack: three brokers, producers and consumers of the same groups, leases
 * that run out, nacks, releases, stale holders, and connections that die. Half of the consumers
 * receive as SQS does, with followers. Some use one receipt, or those of one group, at two brokers
 * at once.
 */

const SECONDS = isLong ? 60 : 3;
/** A slow machine gets this much longer, until so many messages are acked. */
const EXTRA_SECONDS = 20;
const ENOUGH = 100;
const BROKERS = 3;
const PRODUCERS = 4;
const CONSUMERS = 9;

let brokers: TestStore[];
let deadlocks: () => number;

beforeAll(async () => {
  const first = await openStore({ poolSize: 10 });
  brokers = [first];
  while (brokers.length < BROKERS) brokers.push(await openStore({ on: first.url, poolSize: 10 }));
  deadlocks = countDeadlocks(brokers.map(({ database }) => database));
});
afterAll(async () => {
  for (const broker of brokers.toReversed()) await broker.close();
});

/** The messages that groups owe, as far as the clients know. */
class Ledger {
  readonly violations: string[] = [];
  readonly sent = new Set<string>();
  readonly acked = new Set<string>();
  handedOff = 0;
  followers = 0;
  /** The number of their acks that are on their way, or got no answer. */
  readonly inDoubt = new Map<string, number>();
  private readonly owed = new Map<string, Set<string>>();

  stored(group: string, ids: readonly Buffer[]): void {
    for (const id of ids) {
      this.sent.add(text(id));
      this.owed.set(group, (this.owed.get(group) ?? new Set()).add(text(id)));
    }
  }

  /** The messages that must come before any later one of their group. */
  before(group: string): string[] {
    return [...(this.owed.get(group) ?? [])];
  }

  /** @param owed the messages that the groups owed before the claim */
  received(leased: readonly LeasedMessage[], owed: ReadonlyMap<string, readonly string[]>): void {
    const last = new Map<string, string>();
    for (const { messageId, groupId = '' } of leased) {
      const id = text(messageId);
      if (this.acked.has(id) && !this.inDoubt.has(id)) this.violations.push(`${id} came after its ack`);
      if (id <= (last.get(groupId) ?? '')) this.violations.push(`${id} came behind ${last.get(groupId)}`);
      const overtaken = (owed.get(groupId) ?? []).filter(
        (one) => one < id && one > (last.get(groupId) ?? '') && !this.acked.has(one) && !this.inDoubt.has(one),
      );
      if (overtaken.length > 0) this.violations.push(`${id} overtook ${overtaken.join(', ')}`);
      last.set(groupId, id);
    }
  }

  async ack(leased: readonly LeasedMessage[], ack: () => Promise<(string | null)[]>): Promise<void> {
    for (const { messageId } of leased) this.doubt(text(messageId), 1);
    let outcomes: (string | null)[];
    try {
      outcomes = await ack();
    } catch (error) {
      if (error instanceof RowmqError) return;
      throw error;
    }
    for (const [index, { messageId, groupId = '' }] of leased.entries()) {
      const id = text(messageId);
      if (outcomes[index] === null) {
        if (this.acked.has(id)) this.violations.push(`${id} was acked twice`);
        this.acked.add(id);
        this.owed.get(groupId)?.delete(id);
      }
      if (outcomes[index] !== 'delivery-not-found') this.doubt(id, -1);
    }
  }

  /** A stale holder's refusal says nothing of another ack that is on its way. */
  private doubt(id: string, change: 1 | -1): void {
    const acks = (this.inDoubt.get(id) ?? 0) + change;
    if (acks > 0) this.inDoubt.set(id, acks);
    else this.inDoubt.delete(id);
  }
}

const FATES = ['ack', 'ack', 'ack', 'nack', 'release', 'stale', 'part', 'twice', 'apart', 'apart', 'operator'];

function text(id: Buffer): string {
  return id.toString('hex');
}

/** Kills a connection of one of the brokers now and then. */
async function killConnections(isOver: () => boolean): Promise<number> {
  let killed = 0;
  const admin = await openStore({ on: (brokers[0] as TestStore).url, poolSize: 1 });
  while (!isOver()) {
    await sleep(150);
    const [victim] = await admin.database.read<{ id: number }>(
      'SELECT ID AS id FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID() ORDER BY RAND() LIMIT 1',
    );
    // It may be gone already.
    if (victim !== undefined) await admin.database.write(`KILL ${victim.id}`).catch(() => undefined);
    killed += 1;
  }
  await admin.close();
  return killed;
}

async function attack(groups: number, withKills: boolean): Promise<Ledger> {
  const ledger = new Ledger();
  const queue: Queue = await createQueue(brokers[0] as TestStore, { ordering: 'group' });
  const names = Array.from({ length: groups }, (_, index) => `g${index}`);
  const begun = performance.now();
  const isOver = (): boolean => {
    const seconds = (performance.now() - begun) / 1000;
    return seconds >= SECONDS && (ledger.acked.size > ENOUGH || seconds >= SECONDS + EXTRA_SECONDS);
  };
  const pick = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)] as T;
  /** Messages that found a consumer who waited. */
  const handedOff: LeasedMessage[][] = [];
  const produce = async (): Promise<void> => {
    while (!isOver()) {
      const { batches } = pick(brokers).messages;
      const wanted = Array.from({ length: 1 + Math.floor(Math.random() * 5) }, () => pick(names));
      const messages = wanted.map((groupId) => message({ groupId }));
      const owed = new Map(names.map((name) => [name, ledger.before(name)]));
      const waiting = (): Reservation => ({
        maxMessages: pick([1, 3]),
        leaseSeconds: pick([0.05, 0.3, 2]),
        handOff: (leased) => {
          ledger.handedOff += leased.length;
          ledger.received(leased, owed);
          handedOff.push(leased);
        },
        cancel: () => undefined,
      });
      const reserve = (): Reservation[] => (Math.random() < 0.5 ? [waiting(), waiting()] : []);
      const requests = [{ queueName: queue.name, messages }];
      const [ids] = await batches.enqueueInOrder(requests, { reserve }).catch((error: unknown) => {
        if (error instanceof RowmqError) return [undefined];
        throw error;
      });
      if (ids instanceof Error) throw ids;
      for (const [index, { id }] of (ids ?? []).entries()) ledger.stored(wanted[index] as string, [id]);
      // Consumers keep up, so that groups become idle and busy again.
      if (ledger.sent.size - ledger.acked.size > Math.min(100, 3 * groups)) await sleep(50);
    }
  };
  const consume = async (mayStop: () => boolean): Promise<void> => {
    while (!mayStop()) {
      const { messages } = pick(brokers);
      const isRough = !isOver();
      const owed = new Map(names.map((name) => [name, ledger.before(name)]));
      const leaseSeconds = isRough ? pick([0.05, 0.3, 2]) : 5;
      const waited = handedOff.shift();
      const leased =
        waited ?? (await messages.dequeue(queue, { maxMessages: pick([1, 3, 10]), leaseSeconds }).catch(() => []));
      const followers =
        Math.random() < 0.5 ? await messages.batches.follow(queue, leased, pick([1, 3, 10])).catch(() => []) : [];
      ledger.followers += followers.length;
      const receipts = [...leased, ...followers];
      // A consumer that waited has been checked at its hand-off.
      ledger.received(waited === undefined ? receipts : followers, waited === undefined ? owed : new Map());
      if (leased.length === 0) await sleep(20);
      const fate = isRough ? pick(FATES) : 'ack';
      if (fate === 'stale') await sleep(leaseSeconds < 1 ? leaseSeconds * 1000 + 300 : 0);
      const taken = fate === 'part' ? receipts.filter(() => Math.random() < 0.5) : receipts;
      const { batches } = messages;
      const request = { queueId: queue.id, receipts: taken };
      if (taken.length === 0) continue;
      const others = pick(brokers).messages.batches;
      if (fate === 'nack') await batches.nack([{ ...request, delaySeconds: pick([0, 0.1]) }]).catch(() => undefined);
      else if (fate === 'release') await batches.release([request]).catch(() => undefined);
      else if (fate === 'operator')
        await batches
          .fulfil(pick(taken).messageId, [queue.id], { does: 'release', reaches: () => true })
          .catch(() => undefined);
      else if (fate === 'apart') {
        // One transaction has the first message of a group, and the other one its followers.
        const ackHalf = async (on: typeof batches, half: number): Promise<void> => {
          const some = taken.filter((_, index) => index % 2 === half);
          await ledger.ack(some, async () => (await on.ackInOrder([{ queueId: queue.id, receipts: some }]))[0] ?? []);
        };
        await Promise.all([ackHalf(batches, 0), ackHalf(others, 1)]);
      } else if (fate === 'twice') {
        const extend = { ...request, leaseSeconds: pick([0.1, 1]) };
        await Promise.all([batches.extend([extend]), others.extend([extend])]).catch(() => undefined);
        await ledger.ack(taken, async () => {
          const both = await Promise.all([batches.ackInOrder([request]), others.ackInOrder([request])]);
          return taken.map((one, index) => {
            const outcomes = both.map(([of]) => of?.[index] ?? null);
            if (outcomes.every((outcome) => outcome === null))
              ledger.violations.push(`${text(one.messageId)} was acked at two brokers`);
            return outcomes.find((outcome) => outcome === null) === null ? null : (outcomes[0] as string);
          });
        });
      } else await ledger.ack(taken, async () => (await batches.ackInOrder([request]))[0] ?? []);
    }
  };
  const producers = Promise.all(Array.from({ length: PRODUCERS }, produce));
  const kills = withKills ? killConnections(isOver) : Promise.resolve(0);
  let isDrained = false;
  const consumers = Promise.all(Array.from({ length: CONSUMERS }, () => consume(() => isDrained)));
  await Promise.all([producers, kills]);
  const first = brokers[0] as TestStore;
  for (const end = performance.now() + 60_000; !isDrained && performance.now() < end; await sleep(100))
    isDrained = (await first.unleased.lastId(queue.id)) === null;
  const stuck = await first.database.read(
    `SELECT HEX(pack_id) AS pack, HEX(lease_token) AS token, part, members, available_at, group_key, UNIX_TIMESTAMP(NOW(3)) * 1000 AS now
     FROM delivery WHERE queue_id = ? LIMIT 20`,
    [queue.id],
  );
  isDrained = true;
  await consumers;
  expect(stuck, 'every message is handed out in the end').toEqual([]);
  const left = await first.database.read('SELECT * FROM message_group WHERE queue_id = ?', [queue.id]);
  expect(left, 'no group is left').toEqual([]);
  return ledger;
}

it.each([
  ['few groups', 3, false],
  ['many groups', 300, false],
  ['groups whose brokers lose connections', 20, true],
])(
  'messages of %s are handed out in order, none is lost or doubled, and nothing deadlocks',
  async (_, groups, withKills) => {
    const before = deadlocks();
    const { sent, acked, inDoubt, violations, handedOff, followers } = await attack(groups, withKills);
    expect(followers).toBeGreaterThanOrEqual(groups < 100 ? 10 : 0);
    // A few groups are hardly ever idle.
    expect(handedOff).toBeGreaterThanOrEqual(groups < 100 ? 0 : 10);
    expect(violations).toEqual([]);
    expect([...sent].filter((id) => !acked.has(id) && !inDoubt.has(id))).toEqual([]);
    expect(acked.size).toBeGreaterThan(ENOUGH);
    await expectNoDeadlock(deadlocks() - before, { leasesRunOut: true });
  },
  120_000,
);
