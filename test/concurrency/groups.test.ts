import { setTimeout as sleep } from 'node:timers/promises';
import { RowmqError } from '@rowmq/contract';
import type { LeasedMessage, Queue, Reservation, StoreObserver } from '@rowmq/store';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { countDeadlocks, expectNoDeadlock } from '../support/deadlocks.js';
import { owedIds } from '../support/deliveries.js';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';
import { Ledger, pick, text } from './group-ledger.js';
import { isLong } from './length.js';
import { operate, reap } from './operators.js';

/*
 * Ordered queues under attack: three brokers, producers and consumers of the same groups, leases
 * that run out, nacks, releases, stale holders, and connections that die. Consumers also reject
 * messages, operators cancel and purge them, and some expire.
 *
 * Half of the consumers receive as SQS does, with followers. Some use one receipt, or those of one
 * group, at two brokers at once.
 */

const SECONDS = isLong ? 60 : 3;
/** A slow machine gets this much longer, until everything has happened that the test expects. */
const EXTRA_SECONDS = 40;
const ENOUGH = 100;
const SOME = 10;
const BROKERS = 3;
const PRODUCERS = 4;
const CONSUMERS = 9;

let brokers: TestStore[];
let deadlocks: () => number;
/** Counts the messages of a queue that claims find expired. */
let expiredOnSight: { queue: string; ledger: Ledger } | undefined;

const observer: StoreObserver = {
  removedInClaim: (event, queue, count) => {
    if (event === 'expired' && queue === expiredOnSight?.queue) expiredOnSight.ledger.expired += count;
  },
  rescanned: () => undefined,
};

beforeAll(async () => {
  const first = await openStore({ poolSize: 10, observer });
  brokers = [first];
  while (brokers.length < BROKERS) brokers.push(await openStore({ on: first.url, poolSize: 10, observer }));
  deadlocks = countDeadlocks(brokers.map(({ database }) => database));
});
afterAll(async () => {
  for (const broker of brokers.toReversed()) await broker.close();
});

const FATES = ['ack', 'ack', 'ack', 'nack', 'release', 'stale', 'part', 'twice', 'apart', 'apart', 'operator'];

/** The disturbance of producers and consumers. */
interface Trouble {
  /** Connections die. */
  kills?: boolean;
  /** Consumers reject messages, operators cancel and purge them, and some expire. */
  endings?: boolean;
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

function endingsOf({ rejected, cancelled, purged, expired }: Ledger): number[] {
  return [rejected.size, cancelled.size, purged, expired];
}

/** Tells whether everything has happened that the test expects. */
function hasHappened(ledger: Ledger, groups: number, { endings = false }: Trouble): boolean {
  const { acked, followers, handedOff } = ledger;
  const isEnough = acked.size > ENOUGH && (groups < 100 ? followers : handedOff) >= SOME;
  return isEnough && (!endings || endingsOf(ledger).every((count) => count > 0));
}

async function attack(groups: number, { kills = false, endings = false }: Trouble): Promise<Ledger> {
  const ledger = new Ledger();
  const [first] = brokers as [TestStore];
  const dead: Queue = await createQueue(first, { ordering: 'group' });
  const queue: Queue = await createQueue(first, { ordering: 'group', deadLetterQueue: dead.name });
  expiredOnSight = { queue: queue.name, ledger };
  const names = Array.from({ length: groups }, (_, index) => `g${index}`);
  const begun = performance.now();
  const isOver = (): boolean => {
    const seconds = (performance.now() - begun) / 1000;
    return seconds >= SECONDS && (hasHappened(ledger, groups, { endings }) || seconds >= SECONDS + EXTRA_SECONDS);
  };
  /** Messages that found a consumer who waited. */
  const handedOff: LeasedMessage[][] = [];
  const produce = async (): Promise<void> => {
    while (!isOver()) {
      const { batches } = pick(brokers).messages;
      const wanted = Array.from({ length: 1 + Math.floor(Math.random() * 5) }, () => pick(names));
      const expires = endings && Math.random() < 0.3;
      const messages = wanted.map((groupId) => message({ groupId, ...(expires && { expiresInSeconds: 1 }) }));
      const sentAt = performance.now();
      const owed = new Map(names.map((name) => [name, ledger.before(name)]));
      const waiting = (): Reservation => ({
        maxMessages: pick([1, 3]),
        leaseSeconds: pick([0.05, 0.3, 2]),
        handOff: (leased) => {
          ledger.handedOff += leased.length;
          ledger.received(leased, owed, sentAt);
          handedOff.push(leased);
        },
        cancel: () => undefined,
      });
      const reserve = (): Reservation[] => (Math.random() < 0.5 ? [waiting(), waiting()] : []);
      const requests = [{ queueName: queue.name, messages }];
      const [ids] = await batches.enqueueInOrder(requests, { reserve }).catch((error: unknown) => {
        if (!(error instanceof RowmqError)) throw error;
        ledger.unanswered += messages.length;
        return [undefined];
      });
      if (ids instanceof Error) throw ids;
      for (const [index, { id }] of (ids ?? []).entries()) ledger.stored(wanted[index] as string, id, sentAt, expires);
      // Consumers keep up, so that groups become idle and busy again.
      if (ledger.left > Math.min(100, 3 * groups)) await sleep(50);
    }
  };
  const consume = async (mayStop: () => boolean): Promise<void> => {
    while (!mayStop()) {
      const { messages } = pick(brokers);
      const isRough = !isOver();
      const owed = new Map(names.map((name) => [name, ledger.before(name)]));
      const leaseSeconds = isRough ? pick([0.05, 0.3, 2]) : 5;
      const waited = handedOff.shift();
      const sentAt = performance.now();
      const wallTime = Date.now();
      const leased =
        waited ?? (await messages.dequeue(queue, { maxMessages: pick([1, 3, 10]), leaseSeconds }).catch(() => []));
      const followers =
        Math.random() < 0.5 ? await messages.batches.follow(queue, leased, pick([1, 3, 10])).catch(() => []) : [];
      ledger.followers += followers.length;
      const receipts = [...leased, ...followers];
      // A consumer that waited has been checked at its hand-off.
      ledger.received(waited === undefined ? receipts : followers, waited === undefined ? owed : new Map(), sentAt);
      for (const { messageId, expiresAt } of waited === undefined ? receipts : followers)
        if (expiresAt < wallTime) ledger.violations.push(`${text(messageId)} came after it had expired`);
      if (leased.length === 0) await sleep(20);
      const fate = isRough ? pick(endings ? [...FATES, 'reject', 'reject'] : FATES) : 'ack';
      if (fate === 'stale') await sleep(leaseSeconds < 1 ? leaseSeconds * 1000 + 300 : 0);
      const taken = fate === 'part' ? receipts.filter(() => Math.random() < 0.5) : receipts;
      const { batches } = messages;
      const request = { queueId: queue.id, receipts: taken };
      if (taken.length === 0) continue;
      const others = pick(brokers).messages.batches;
      if (fate === 'nack') await batches.nack([{ ...request, delaySeconds: pick([0, 0.1]) }]).catch(() => undefined);
      else if (fate === 'release') await batches.release([request]).catch(() => undefined);
      else if (fate === 'reject') await ledger.reject(taken, async () => batches.reject(request));
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
  let isDrained = false;
  const troubles = [
    ...(kills ? [killConnections(isOver)] : []),
    ...(endings ? [operate(ledger, brokers, queue, isOver)] : []),
  ];
  const reaper = endings ? reap(ledger, first, queue, () => isDrained) : undefined;
  const consumers = Promise.all(Array.from({ length: CONSUMERS }, () => consume(() => isDrained)));
  await Promise.all([producers, ...troubles]);
  for (const end = performance.now() + 60_000; !isDrained && performance.now() < end; await sleep(100))
    isDrained = (await first.unleased.lastId(queue.id)) === null;
  const stuck = await first.database.read(
    `SELECT HEX(pack_id) AS pack, HEX(lease_token) AS token, part, members, available_at, group_key, UNIX_TIMESTAMP(NOW(3)) * 1000 AS now
     FROM delivery WHERE queue_id = ? LIMIT 20`,
    [queue.id],
  );
  isDrained = true;
  await Promise.all([consumers, reaper]);
  expect(stuck, 'every message is handed out in the end').toEqual([]);
  const left = await first.database.read('SELECT * FROM message_group WHERE queue_id = ?', [queue.id]);
  expect(left, 'no group is left').toEqual([]);
  if (ledger.unanswered === 0)
    expect(await owedIds(first, dead), 'the rejected ones are dead letters').toEqual([...ledger.rejected].toSorted());
  return ledger;
}

it.each<[string, number, Trouble]>([
  ['few groups', 3, {}],
  ['many groups', 300, {}],
  ['groups whose brokers lose connections', 20, { kills: true }],
  ['groups that are also rejected, cancelled and purged, and expire', 20, { endings: true }],
])(
  'messages of %s are handed out in order, none is lost or doubled, and nothing deadlocks',
  async (_, groups, trouble) => {
    const before = deadlocks();
    const ledger = await attack(groups, trouble);
    const { sent, acked, violations, handedOff, followers } = ledger;
    expect(followers).toBeGreaterThanOrEqual(groups < 100 ? SOME : 0);
    // A few groups are hardly ever idle.
    expect(handedOff).toBeGreaterThanOrEqual(groups < 100 ? 0 : SOME);
    expect(violations).toEqual([]);
    expect(ledger.lost).toEqual([]);
    expect(acked.size).toBeGreaterThan(ENOUGH);
    if (trouble.endings) {
      expect(Math.abs(ledger.ended - sent.size)).toBeLessThanOrEqual(ledger.unanswered);
      for (const some of endingsOf(ledger)) expect(some).toBeGreaterThan(0);
    }
    await expectNoDeadlock(deadlocks() - before, { leasesRunOut: true });
  },
  180_000,
);
