import { setTimeout as sleep } from 'node:timers/promises';
import { formatMessageId, indexInPack, RowmqError } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import { type Database, outcomeUnknown } from '../database/database.js';
import { finish, lockGroupsOf } from '../groups/finish.js';
import { inQueue, isGrouped } from '../groups/group.js';
import { spread } from '../groups/receipts-in-order.js';
import { isWaiting } from '../groups/waiting.js';
import type { Queue } from '../queues/queue.js';
import { copyOf, type Delivery, type Fate, GONE, split } from './delivery.js';
import { isNoLease, lockUnleased, NO_TOKEN } from './delivery.sql.js';
import { bitOf, has, type Members } from './members.js';
import { type MoveTarget, moveTo } from './move.js';
import { findOwing, isLeased, type Owing } from './owing.js';
import { lockLeased, lockTargets } from './unleased.repository.js';

/** Others hold a delivery for milliseconds, or its lease is about to end, so it tries again. */
const TRIES = 60;
const PAUSE_MS = { min: 25, max: 75 };

/** An operator's wish for one message. */
export interface Wish {
  does: 'ack' | 'release' | 'redrive' | 'move';
  /** The queues to which the message may go. */
  reaches: (queue: string) => boolean;
  /** The queue to which it is to move. A redrive knows its own. */
  target?: Pick<Queue, 'id' | 'ordering'>;
}

/** The queue of a message before an operator's wish, and after it. Null: it is settled. */
export interface Handled {
  queueId: number;
  targetId: number | null;
}

/** Changes single messages for an operator, also those that a consumer holds. */
export class OneMessage {
  constructor(private readonly database: Database) {}

  /**
   * Acks, releases, redrives or moves a message in each of these queues that owes it, one after the
   * other. Returns where it was and where it is. If it is leased, its receipt has no effect any
   * more.
   *
   * Throws `delivery-not-found` if no queue owes it, and `invalid-request` if it has no queue to go
   * to. Throws the same if several queues owe a message that is to move, or if a message that is to
   * be released waits behind its group.
   *
   * Locks: for a move the target's row, shared. Then a leased delivery by primary key, as its
   * holder does. Any other one as a cancel does, also one that waits under a lease.
   */
  async run(messageId: Buffer, queueIds: readonly number[], wish: Wish): Promise<Handled[]> {
    const owing = await findOwing(this.database, messageId, queueIds);
    if (owing.length === 0) throw notOwed(messageId);
    // Two copies of a message may have come to one dead-letter queue, and leave it together.
    if (wish.does === 'move' && owing.some(({ queueId }) => queueId !== owing[0]?.queueId)) throw severalOwe(messageId);
    const handled: Handled[] = [];
    for (const one of owing) handled.push(await this.handle(messageId, one, wish));
    return handled;
  }

  /** Tries until it gets the lock, or the message has left the queue. */
  private async handle(messageId: Buffer, first: Owing, wish: Wish): Promise<Handled> {
    let one: Owing | undefined = first;
    for (let tries = 1; one !== undefined; tries += 1) {
      const handled = await this.change(messageId, one, wish);
      if (handled !== undefined) return handled;
      if (tries === TRIES) throw kept(messageId);
      await sleep(PAUSE_MS.min + Math.random() * (PAUSE_MS.max - PAUSE_MS.min));
      const owing: Owing[] = await findOwing(this.database, messageId, [first.queueId]);
      one = owing.find(({ part }) => copyOf(part) === copyOf(first.part));
    }
    throw notOwed(messageId);
  }

  /** Returns undefined, and changes nothing, if others have locked or changed the delivery. */
  private async change(messageId: Buffer, one: Owing, wish: Wish): Promise<Handled | undefined> {
    const { queueId } = one;
    const [index, isHeld] = [indexInPack(messageId), isLeased(one)];
    const isHeldFirst = isHeld && !isWaiting(one);
    if (wish.target !== undefined && (wish.target.ordering === 'group') !== isGrouped(one)) throw doesNotFit(messageId);
    if (wish.does === 'release' && !isHeld) {
      if (isWaiting(one)) throw waits(messageId);
      if (one.availableAt <= one.now) return { queueId, targetId: queueId };
    }
    const targetId = wish.does === 'redrive' ? one.sourceQueueId : (wish.target?.id ?? null);
    return this.database.transaction(async (tx) => {
      const { targets } = await lockTargets(tx, targetId === null ? [] : [targetId], wish);
      const [target] = targets;
      const moves = wish.does === 'redrive' || wish.does === 'move';
      if (moves && (target === undefined || target.id === queueId)) throw nowhereToGo(messageId);
      const queueIds = [queueId, ...targets.map(({ id }) => id)];
      const groups = isHeldFirst
        ? []
        : await lockGroupsOf(
            tx,
            queueIds.flatMap((id) => inQueue(id, [one])),
          );
      const locked = isHeldFirst
        ? await lockLeased(tx, queueId, [one])
        : await lockUnleased(tx, queueId, [one], isHeld ? 'TRUE' : `d.expires_at > ${NOW_MS}`, {
            withFollowers: isHeld,
          });
      const row = locked.find(({ part, members }) => part === one.part && has(members, index));
      if (row === undefined) {
        // The first try may have changed the message, and others since.
        if (tx.commitUnknown) throw outcomeUnknown();
        await finish(tx, [], [], groups);
        return undefined;
      }
      const [{ now }] = (await tx.read(`SELECT ${NOW_MS} AS now`)) as [{ now: number }];
      const fates = new Map<Fate, Members>([[fateOf(row, wish, target, now), bitOf(index)]]);
      const isSpread = isHeld && isGrouped(row) && wish.does === 'release';
      await finish(
        tx,
        [row],
        split(row, isSpread ? spread('with-later', row, fates, bitOf(index), now) : fates),
        groups,
      );
      return { queueId, targetId: wish.does === 'ack' ? null : (target?.id ?? queueId) };
    });
  }
}

function fateOf(row: Delivery, { does }: Wish, target: MoveTarget | undefined, now: number): Fate {
  if (does === 'ack') return GONE;
  if (target !== undefined) return moveTo(target, row, now, does === 'redrive' ? 'redriven' : 'moved');
  // As a consumer's release: a receive that is undone does not count.
  const receiveCount = isNoLease(row.leaseToken) ? row.receiveCount : row.receiveCount - 1;
  return { leaseToken: NO_TOKEN, availableAt: now, receiveCount };
}

function notOwed(messageId: Buffer): RowmqError {
  return new RowmqError(
    'delivery-not-found',
    `No queue owes message ${formatMessageId(messageId)}: it was settled, has moved, or was never enqueued. GET /v1/admin/messages/{id} shows what is known of it.`,
  );
}

function severalOwe(messageId: Buffer): RowmqError {
  return new RowmqError(
    'invalid-request',
    `Several queues owe message ${formatMessageId(messageId)}; name the one that it is to leave as queue.`,
  );
}

function nowhereToGo(messageId: Buffer): RowmqError {
  return new RowmqError(
    'invalid-request',
    `Message ${formatMessageId(messageId)} has no queue to go to: it is there already, or that queue was deleted, or the key does not reach it. Move it to a queue that you name.`,
  );
}

function doesNotFit(messageId: Buffer): RowmqError {
  return new RowmqError(
    'invalid-request',
    `Message ${formatMessageId(messageId)} cannot move to that queue: only one of both hands out its messages in the order of groups.`,
  );
}

function waits(messageId: Buffer): RowmqError {
  return new RowmqError(
    'invalid-request',
    `Message ${formatMessageId(messageId)} waits behind others of its group, so it cannot be released; handle the first message of the group.`,
  );
}

function kept(messageId: Buffer): RowmqError {
  return new RowmqError(
    'overloaded',
    `Other transactions keep message ${formatMessageId(messageId)} locked; try again.`,
    { retryAfterSeconds: 1 },
  );
}
