import { setTimeout as sleep } from 'node:timers/promises';
import { formatMessageId, indexInPack, RowmqError } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import { type Database, outcomeUnknown } from '../database/database.js';
import { finish, lockGroupsOf } from '../groups/finish.js';
import { type Delivery, GONE, split } from './delivery.js';
import { lockUnleased } from './delivery.sql.js';
import { bitOf } from './members.js';
import { findOwing, isLeased, type Owing } from './owing.js';
import { withdraw } from './withdrawn.sql.js';

/** A transaction that changes a delivery holds it for milliseconds, so the cancel tries again. */
const TRIES = 40;
const PAUSE_MS = { min: 25, max: 75 };

/** Settles single messages that nobody has leased. */
export class Cancel {
  constructor(private readonly database: Database) {}

  /**
   * Settles a message wherever it is owed, and returns the queues. Throws `delivery-not-found` if
   * no queue owes it, and `message-leased` if a consumer holds it; it then settles nothing.
   *
   * It reads the message's deliveries without locks and then locks them as a claim does. If a claim
   * was faster, it skips what the claim has locked, and looks again at what has become of it.
   *
   * Locks: the groups of ordered queues, then `lockUnleased` in delivery.sql.ts, for one queue
   * after the other. In other queues it waits for nothing. At last the rows of `withdrawn`.
   */
  async run(messageId: Buffer, queueIds: readonly number[]): Promise<number[]> {
    for (let tries = 1; ; tries += 1) {
      const owing = await findOwing(this.database, messageId, queueIds);
      if (owing.length === 0) throw notOwed(messageId);
      if (owing.some(isLeased)) throw leased(messageId);
      if (await this.settle(messageId, owing)) return owing.map(({ queueId }) => queueId);
      if (tries === TRIES) throw kept(messageId);
      await sleep(PAUSE_MS.min + Math.random() * (PAUSE_MS.max - PAUSE_MS.min));
    }
  }

  /**
   * Returns false, and settles nothing, if another transaction has locked or changed one of the
   * deliveries.
   */
  private async settle(messageId: Buffer, owing: readonly Owing[]): Promise<boolean> {
    const member = bitOf(indexInPack(messageId));
    const condition = `d.members & ${member} <> 0 AND d.expires_at > ${NOW_MS}`;
    return this.database.transaction(async (tx) => {
      const groups = await lockGroupsOf(tx, owing);
      const locked: Delivery[] = [];
      for (const one of owing) {
        const found = await lockUnleased(tx, one.queueId, [one], condition);
        // Another copy of the message may have the same position.
        locked.push(...found.filter(({ part }) => part === one.part));
      }
      if (locked.length < owing.length) {
        // The first try may have settled the message, or a consumer may have acked it since.
        if (tx.commitUnknown) throw outcomeUnknown();
        await finish(tx, [], [], groups);
        return false;
      }
      const left = locked.flatMap((row) => split(row, new Map([[GONE, member]])));
      const cancelled = locked.map((row) => ({ ...row, members: member }));
      await finish(tx, locked, left, groups, withdraw(cancelled, 'cancelled'));
      return true;
    });
  }
}

function notOwed(messageId: Buffer): RowmqError {
  return new RowmqError(
    'delivery-not-found',
    `No queue owes message ${formatMessageId(messageId)}: it was settled, or never enqueued. There is nothing to cancel.`,
  );
}

function leased(messageId: Buffer): RowmqError {
  return new RowmqError(
    'message-leased',
    `A consumer holds message ${formatMessageId(messageId)}, so it cannot be cancelled any more; let the consumer decide, or try again if the message becomes ready.`,
  );
}

function kept(messageId: Buffer): RowmqError {
  return new RowmqError(
    'overloaded',
    `Other transactions keep message ${formatMessageId(messageId)} locked; try again.`,
    { retryAfterSeconds: 1 },
  );
}
