import { LIMITS, mostPackBytes, packIdOf } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import { hex } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import { copyOf, type Delivery, type Fate, split } from '../messages/delivery.js';
import { DELIVERY_COLUMNS, LEASE_GRACE_MS, rewrite } from '../messages/delivery.sql.js';
import {
  firstReceiveOf,
  type Lease,
  type LeasedMessage,
  nextReceiveCount,
  readLeased,
  readPacks,
} from '../messages/leased-message.js';
import { countMembers, indexesOf, lowestMembers, type Members } from '../messages/members.js';
import type { StoredPack } from '../messages/stored-pack.js';
import { type GroupKey, groupKeyOf, groupsOf, keyText } from './group.js';
import {
  deleteGroups,
  type Group,
  isIdle,
  lockGroups,
  type Next,
  readGroups,
  readNext,
  readWaiting,
} from './group.sql.js';
import { WAITING } from './waiting.js';

/**
 * Followers: waiting deliveries under a lease. A consumer who holds the first delivery of a group
 * may get the next ones with it. They keep their place behind it. So no claim sees them, and the
 * group stays his alone until he has settled them in any order.
 *
 * A follower has the token of the first delivery, and the end of its lease in `delayed_until`. Then
 * it waits like any other. When the deliveries before it are gone, it becomes an ordinary first
 * one, still under its lease.
 */
export class Follow {
  constructor(private readonly database: Database) {}

  /**
   * Leases messages that come next in the groups that one consumer has just got. In each group it
   * stops at the first message that is under a lease, delayed, or received too often. That one
   * moves to the dead-letter queue when it is the first of its group.
   *
   * Most groups have nothing to follow, which one read without locks finds out.
   *
   * If the COMMIT gets no answer, the repeat finds the messages under their lease.
   *
   * Locks: the groups' rows, in the order of their keys. They protect the deliveries that wait.
   *
   * @param leased the messages of one claim or hand-off that one consumer got
   * @param room the number of messages that the consumer still takes
   */
  async run(queueId: number, leased: readonly LeasedMessage[], room: number): Promise<LeasedMessage[]> {
    if (room <= 0 || leased.length === 0) return [];
    const all = headsOf(queueId, leased);
    const { sql, values } = readNext(groupsOf(all));
    const next = await this.database.read<Next>(sql, values);
    const busy = new Set(next.filter((one) => one.next !== null).map(keyText));
    const heads = all.filter((head) => busy.has(keyText(head)));
    if (heads.length === 0) return [];
    const { leases, packs } = await this.database.transaction((tx) => lease(tx, heads, leased, room));
    return (await readLeased(this.database, leases, packs)).filter((one) => one !== undefined);
  }
}

/** A group whose first delivery the consumer holds. */
interface Head extends GroupKey {
  packId: Buffer;
  leaseToken: Buffer;
}

/** The groups of these messages, in their order. */
function headsOf(queueId: number, leased: readonly LeasedMessage[]): Head[] {
  const heads = new Map<number, Head>();
  for (const { messageId, leaseToken, groupId } of leased) {
    if (groupId === undefined) continue;
    const groupKey = groupKeyOf(groupId);
    if (!heads.has(groupKey)) heads.set(groupKey, { queueId, groupKey, packId: packIdOf(messageId), leaseToken });
  }
  return [...heads.values()];
}

/** Messages of a waiting delivery that the consumer gets. */
interface Taken {
  row: Delivery;
  members: Members;
  /** The first delivery of the group. */
  first: Delivery;
  /** A try whose COMMIT got no answer has leased them. */
  isOurs: boolean;
}

/** The transaction of {@link Follow.run}. */
async function lease(
  tx: Transaction,
  heads: readonly Head[],
  leased: readonly LeasedMessage[],
  room: number,
): Promise<{ leases: Lease[]; packs: StoredPack[] }> {
  const found = await read(tx, heads, room);
  const { groups, now } = found;
  const leasing = walk(found, heads, new Answer(leased), room).map((one) => ({
    ...one,
    rows: one.isOurs ? [one.row] : rowsOf(one, now),
  }));
  const fresh = leasing.filter(({ isOurs }) => !isOurs);
  const packIds = [...new Map(leasing.map(({ row: { packId } }) => [packId.toString('latin1'), packId])).values()];
  const idle = groups.filter(isIdle);
  const answers = await tx.finish([
    ...rewrite(
      fresh.map(({ row }) => row),
      fresh.flatMap(({ rows }) => rows),
    ),
    ...(idle.length > 0 ? [deleteGroups(idle)] : []),
    ...(packIds.length > 0 ? [readPacks('pack', packIds)] : []),
  ]);
  return {
    leases: leasing.flatMap(({ rows: [follower] }) => leasesOf(follower as Delivery)),
    packs: packIds.length > 0 ? (answers.at(-1) as StoredPack[]) : [],
  };
}

interface Found {
  groups: Group[];
  /** Null: no message is received too often. */
  maxReceives: number | null;
  /** The first deliveries that the consumer still holds. */
  firsts: Delivery[];
  /** For each head, the deliveries that wait behind it, in order. */
  waiting: Delivery[][];
  now: number;
}

/** Locks the groups, and reads what they protect. */
async function read(tx: Transaction, heads: readonly Head[], room: number): Promise<Found> {
  const groups = groupsOf(heads);
  const answers = await tx.all([
    lockGroups(groups),
    readGroups(groups),
    {
      sql: `SELECT IF(dead_letter_queue_id IS NULL, NULL, max_receives) AS maxReceives
       FROM queue FORCE INDEX (PRIMARY)
       WHERE id = ?
         AND name IS NOT NULL`,
      values: [groups[0]?.queueId],
    },
    readFirsts(heads),
    { sql: `SELECT ${NOW_MS} AS now` },
    ...heads.map((head) => readWaiting(head, room)),
  ]);
  const [, locked, [queue], firsts, [{ now }], ...waiting] = answers as [
    unknown,
    Group[],
    { maxReceives: number | null }[],
    Delivery[],
    [{ now: number }],
    ...Delivery[][],
  ];
  const held = firsts.filter(({ availableAt }) => availableAt - LEASE_GRACE_MS > now);
  // A deleted queue hands out nothing.
  return { groups: locked, maxReceives: queue?.maxReceives ?? null, firsts: queue ? held : [], waiting, now };
}

/** Needs no locks: a lease that ends meanwhile ends those of the followers, too. */
function readFirsts(heads: readonly Head[]): Statement {
  const conditions = heads.map(
    ({ queueId, packId, leaseToken }) =>
      `(d.queue_id = ${queueId} AND d.pack_id = ${hex(packId)} AND d.lease_token = ${hex(leaseToken)})`,
  );
  return {
    sql: `SELECT ${DELIVERY_COLUMNS}
       FROM delivery d FORCE INDEX (PRIMARY)
       WHERE (${conditions.join('\n         OR ')})
         AND d.available_at < ${WAITING}`,
  };
}

/** Chooses messages, group by group, until one must not go or there is no more room. */
function walk({ firsts, waiting, maxReceives, now }: Found, heads: readonly Head[], answer: Answer, room: number) {
  const taken: Taken[] = [];
  let left = room;
  for (const [nth, { groupKey, leaseToken }] of heads.entries()) {
    const first = firsts.find((row) => row.groupKey === groupKey && row.leaseToken.equals(leaseToken));
    // The consumer has lost the group.
    if (first === undefined) continue;
    for (const row of waiting[nth] ?? []) {
      const isKept = (row.delayedUntil ?? 0) > now;
      const isOurs = isKept && row.leaseToken.equals(leaseToken);
      const isOverReceived = maxReceives !== null && row.receiveCount >= maxReceives;
      if (!isOurs && (isKept || isOverReceived)) break;
      if (left === 0 || !answer.fits(row)) break;
      const members = lowestMembers(row.members, left);
      left -= countMembers(members);
      taken.push({ row, members, first, isOurs });
    }
  }
  return taken;
}

/** The answer of one receive. It has room for some bytes of packs, and one copy of each message. */
class Answer {
  private readonly copies = new Map<string, number>();
  private bytes = 0;

  constructor(leased: readonly LeasedMessage[]) {
    for (const { messageId, part } of leased) {
      const packId = packIdOf(messageId);
      if (!this.copies.has(packId.toString('latin1'))) this.add(packId, part);
    }
  }

  /** Whether there is room for this delivery, which then counts. */
  fits({ packId, part }: Delivery): boolean {
    const copy = this.copies.get(packId.toString('latin1'));
    if (copy !== undefined) return copy === copyOf(part);
    if (this.bytes + mostPackBytes(packId) > LIMITS.answerBytes) return false;
    this.add(packId, part);
    return true;
  }

  private add(packId: Buffer, part: number): void {
    this.copies.set(packId.toString('latin1'), copyOf(part));
    this.bytes += mostPackBytes(packId);
  }
}

/** The rows that take a delivery's place: the follower, and behind it the rest. */
function rowsOf({ row, members, first }: Taken, now: number): Delivery[] {
  const fate: Fate = {
    leaseToken: first.leaseToken,
    delayedUntil: first.availableAt,
    receiveCount: nextReceiveCount(row),
    firstReceivedAt: firstReceiveOf(row, now),
  };
  return split(row, new Map([[fate, members]]));
}

function leasesOf(follower: Delivery): Lease[] {
  const { leaseToken, part, members, receiveCount } = follower;
  const firstReceivedAt = Number(follower.firstReceivedAt);
  const leaseExpiresAt = Number(follower.delayedUntil) - LEASE_GRACE_MS;
  return Array.from(indexesOf(members), (index) => ({
    delivery: follower,
    index,
    receipt: { leaseToken, part, members, receiveCount, firstReceivedAt },
    leaseExpiresAt,
  }));
}
