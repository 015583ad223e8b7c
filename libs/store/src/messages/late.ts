import { setTimeout as sleep } from 'node:timers/promises';
import { indexInPack, packIdOf, type Receipt } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import { hex } from '../database/hex.js';
import { finish } from '../groups/finish.js';
import { type Delivery, type Fate, GONE, split } from './delivery.js';
import { DELIVERY_COLUMNS, isNoLease, LEASE_GRACE_MS, lockUnleased } from './delivery.sql.js';
import { bitOf } from './members.js';

/**
 * The grace period after the lease must be over, because an ack may be under way until then. Others
 * also lock a delivery for milliseconds without a claim. So a late verb tries again.
 */
const TRIES = 12;
const PAUSE_MS = { min: 25, max: 75 };

/** Settles a message, or leases it again under the same receipt for so many seconds. */
export type LateWish = 'settle' | { leaseSeconds: number };

/**
 * Verbs of SQS with receipts whose lease has run out. As long as nobody else has received the
 * message, its delivery still has the receipt's token. No fence is weakened: the next claim changes
 * the token. In ordered queues, SQS has no such verbs.
 */
export class LateReceipts {
  constructor(private readonly database: Database) {}

  /**
   * Carries out the wish, and returns true. Returns false if somebody else has received the
   * message, or is about to.
   *
   * It reads the delivery without locks, and then locks it as a claim does: index entry before row,
   * with SKIP LOCKED. It therefore cannot deadlock with a claim. A delivery that stays locked is
   * somebody else's.
   *
   * Locks: `lockUnleased` in delivery.sql.ts.
   */
  async run(queueId: number, receipt: Receipt, wish: LateWish): Promise<boolean> {
    if (isNoLease(receipt.leaseToken)) return false;
    const member = bitOf(indexInPack(receipt.messageId));
    for (let tries = 1; tries <= TRIES; tries += 1) {
      const seen = await this.find(queueId, receipt, member);
      if (seen === undefined) return false;
      if (seen.availableAt <= seen.now && (await this.change(seen, member, wish))) return true;
      await sleep(PAUSE_MS.min + Math.random() * (PAUSE_MS.max - PAUSE_MS.min));
    }
    return false;
  }

  private async find(
    queueId: number,
    { messageId, leaseToken }: Receipt,
    member: number,
  ): Promise<(Delivery & { now: number }) | undefined> {
    const [row] = await this.database.read<Delivery & { now: number }>(
      `SELECT ${DELIVERY_COLUMNS}, ${NOW_MS} AS now
       FROM delivery d FORCE INDEX (PRIMARY)
       WHERE d.queue_id = ?
         AND d.pack_id = ?
         AND d.lease_token = ?
         AND d.members & ? <> 0
         AND d.group_key IS NULL`,
      [queueId, packIdOf(messageId), leaseToken, member],
    );
    return row;
  }

  private async change(seen: Delivery, member: number, wish: LateWish): Promise<boolean> {
    const condition = `d.lease_token = ${hex(seen.leaseToken)} AND d.part = ${seen.part} AND d.members & ${member} <> 0`;
    return this.database.transaction(async (tx) => {
      const rows = await lockUnleased(tx, seen.queueId, [seen], condition);
      if (rows.length === 0) return false;
      const [{ now }] = (await tx.read<{ now: number }>(`SELECT ${NOW_MS} AS now`)) as [{ now: number }];
      const fate: Fate = wish === 'settle' ? GONE : { availableAt: now + wish.leaseSeconds * 1000 + LEASE_GRACE_MS };
      await finish(
        tx,
        rows,
        rows.flatMap((row) => split(row, new Map([[fate, member]]))),
      );
      return true;
    });
  }
}
