import { RowmqError } from '@rowmq/contract';
import { Claim, type Claimed, type DequeueRequest, type LeasedDelivery } from './claim.js';
import { NOW_MS } from '../database/clock.js';
import { releaseLeases } from './claim.sql.js';
import type { Database, Transaction } from '../database/database.js';
import {
  deleteDeliveries,
  isNoLease,
  LEASE_GRACE_MS,
  moveDeliveries,
  NO_LEASE,
  type Position,
  lockUnleased,
} from './delivery.sql.js';
import { Enqueue, type EnqueueOutcome, type EnqueueRequest } from './enqueue.js';
import { Receipts, type ReceiptVerb, type ReceiptOutcomes, type ReceiptsRequest } from './receipts.js';
import { groupBy } from '../group-by.js';
import { type Queue, QueueRepository } from '../queues/queue.repository.js';
import { ScanFloors } from './scan-floors.js';
import { NO_OBSERVER, type StoreObserver } from '../store-observer.js';

export interface DequeueOutcome {
  /** For each demand, in the order given. */
  leased: LeasedDelivery[][];
  /**
   * Whether there may be more for those who got less than they wanted: then look once more before
   * calling the queue empty. It takes its time only where nothing was leased. Never rejects.
   */
  claimAgain: Promise<boolean>;
}

/**
 * A message's life, in the order in which it is lived. Each method carries out a flight: requests
 * of any number of clients and queues, in one short READ COMMITTED transaction where possible,
 * since the commit is what costs. It returns after COMMIT and answers for every request by itself;
 * what it throws, nothing was carried out (or, where it says so, nobody knows).
 *
 * Locks: whoever wants deliveries that are under no lease (claim, expire, dead-letter, redrive,
 * purge) takes them through the index `delivery_next`, entry before row, and skips what others
 * hold. Whoever holds a lease (ack, nack, extend, release) takes its rows by primary key in
 * ascending order, and their index entries after them. So the two meet only on a lease that just
 * runs out. Enqueue locks nothing that exists but the queues' rows.
 */
export class MessageRepository {
  private readonly enqueuing: Enqueue;
  private readonly claims: Claim;
  private readonly receipts: Receipts;
  /** Queues of which deliveries are being dead-lettered on sight. */
  private readonly moving = new Set<number>();

  constructor(
    private readonly database: Database,
    private readonly observer: StoreObserver = NO_OBSERVER,
    queues = new QueueRepository(database),
  ) {
    const floors = new ScanFloors();
    this.enqueuing = new Enqueue(database, queues, floors);
    this.claims = new Claim(database, floors, observer);
    this.receipts = new Receipts(database);
  }

  /**
   * Stores messages with their deliveries: those of one request all or none. A request that is not
   * stored has as its outcome `queue-not-found`, `queue-full`, or `invalid-request` for a message
   * that would expire before its delay ends.
   *
   * Locks: the queues' rows, shared, in id order; then new rows, which nobody else can want. A
   * queue with a maximum depth has a transaction of its own, after those before it, which holds its
   * row exclusively. A try whose COMMIT got no answer is repeated with the same ids: meeting them
   * means that it had committed.
   * @param onlyUnbounded keeps requests for such queues from holding up the others: they are not
   * carried out, and their outcome is {@link BoundedQueueError}
   */
  async enqueue(
    requests: readonly EnqueueRequest[],
    { onlyUnbounded = false }: { onlyUnbounded?: boolean } = {},
  ): Promise<EnqueueOutcome[]> {
    return this.enqueuing.run(requests, onlyUnbounded);
  }

  /**
   * Claims deliveries, with one claim per queue for all its consumers: the most urgent first and
   * within a priority the longest available first, for the consumer who came first. Expired
   * deliveries met on the way are removed, over-received ones dead-lettered: correctness does not
   * wait for the reaper.
   *
   * Locks: index entry, then row, of hardly more deliveries than are leased, where a look without
   * locks has seen them; skips what others hold. A move to the dead-letter queue is a transaction
   * of its own. Where a claim begins to look: `ScanFloors`.
   */
  async dequeue(requests: readonly DequeueRequest[]): Promise<DequeueOutcome[]> {
    const claimed = await this.claims.run(requests);
    return claimed.map((claim, index) => {
      const { queue } = requests[index] as DequeueRequest;
      const expired = claim.head.expired.length;
      if (expired > 0) this.observer.removedInClaim('expired', queue.name, expired);
      return { leased: claim.leased, claimAgain: this.finishClaim(queue, claim) };
    });
  }

  /**
   * After a claim: moves what it could not hand out, and peeks below the scan floor. What was
   * leased must not wait for that, nor be lost if it fails: the next claim, or the reaper, tries it
   * again.
   */
  private async finishClaim(queue: Queue, claim: Claimed): Promise<boolean> {
    const { live, expired, overReceived } = claim.head;
    const moved = this.deadLetterOnSight(queue, overReceived).catch(() => undefined);
    if (live.length === 0) await moved;
    const isBelow = await this.claims.rescan(queue.id, live.length === 0);
    return claim.isShort && (isBelow || expired.length + overReceived.length + claim.missed > 0);
  }

  /**
   * Which of these queues have something ready. One statement for all of them, which locks nothing
   * and skips nothing: what it finds, others may hold.
   */
  async poll(queueIds: readonly number[]): Promise<Set<number>> {
    return this.claims.poll(queueIds);
  }

  /**
   * Moves the deadlines of leases to `leaseSeconds` from now. The receipts stay valid. Also tells
   * the new deadlines, ms since 1970. Locks: the rows in primary-key order.
   */
  async extend(
    requests: readonly (ReceiptsRequest & { leaseSeconds: number })[],
  ): Promise<{ outcomes: ReceiptOutcomes; leaseExpiresAt: number }[]> {
    const { outcomes, now } = await this.receipts.change(requests, EXTEND);
    return requests.map(({ leaseSeconds }, index) => ({
      outcomes: outcomes[index] as ReceiptOutcomes,
      leaseExpiresAt: now + leaseSeconds * 1000,
    }));
  }

  /**
   * Gives leased deliveries back, to be handed out again after `delaySeconds`. Locks: the rows in
   * primary-key order.
   */
  async nack(
    requests: readonly (ReceiptsRequest & { delaySeconds: number; reason?: string | undefined })[],
  ): Promise<ReceiptOutcomes[]> {
    const { outcomes } = await this.receipts.change(requests, NACK);
    this.claims.forgetReadAhead(requests.map(({ queueId }) => queueId));
    return outcomes;
  }

  /**
   * Dead-letters leased deliveries, however often they were received. Throws `invalid-request` if
   * the queue has no dead-letter queue.
   *
   * Locks: the queue's row, shared, as {@link deadLetter} does; then the rows in primary-key order.
   */
  async reject(request: ReceiptsRequest & { reason?: string | undefined }): Promise<ReceiptOutcomes> {
    let deadLetterQueueId: number | null = null;
    const verb: ReceiptVerb<ReceiptsRequest> = {
      begin: async (tx) => {
        deadLetterQueueId = (await lockSettings(tx, request.queueId))?.deadLetterQueueId ?? null;
        if (deadLetterQueueId !== null) return;
        throw new RowmqError(
          'invalid-request',
          'The queue has no dead-letter queue; set its deadLetterQueue, or nack without deadLetter.',
        );
      },
      apply: ({ queueId }, messageIds) =>
        moveDeliveries(queueId, deadLetterQueueId as number, messageIds, request.reason),
      secondOutcome: 'delivery-not-found',
      wasApplied: (row) => row === undefined,
    };
    const { outcomes } = await this.receipts.change([request], verb);
    return outcomes[0] as ReceiptOutcomes;
  }

  /**
   * Gives back deliveries that were claimed for consumers who never got them: available now, at the
   * end of their priority, and the receive is not counted. Leases that are no longer held are left
   * alone. Locks: the rows in primary-key order.
   */
  async release({ queueId, receipts }: ReceiptsRequest): Promise<void> {
    for (const [token, group] of groupBy(receipts, ({ leaseToken }) => leaseToken.toString('latin1'))) {
      const messageIds = group.map(({ messageId }) => messageId);
      const { sql, values } = releaseLeases(queueId, messageIds, Buffer.from(token, 'latin1'));
      await this.database.write(sql, values);
    }
    this.claims.forgetReadAhead([queueId]);
  }

  /**
   * Settles leased deliveries: they are deleted and never handed out again. The messages' rows stay
   * until they are reaped. Locks: the rows in primary-key order.
   */
  async ack(requests: readonly ReceiptsRequest[]): Promise<ReceiptOutcomes[]> {
    return this.receipts.delete(requests);
  }

  /**
   * Removes deliveries among these that are past their expiry and under no lease. Returns how many.
   * Locks: like a claim, see `lockUnleased`.
   */
  async expire(queueId: number, positions: readonly Position[]): Promise<number> {
    return this.database.transaction(async (tx) => {
      const expired = await lockUnleased(tx, queueId, positions, `expires_at <= ${NOW_MS}`);
      if (expired.length > 0) await tx.finish([deleteDeliveries(queueId, expired)]);
      return expired.length;
    });
  }

  /**
   * Dead-letters deliveries among these that were received too often and are available again, by
   * the queue's settings as they are now. Returns how many.
   *
   * Locks: the queue's row, shared, so that its dead-letter queue cannot be changed and then
   * deleted; after it the deliveries, like a claim. In this order, since who waits for a queue's
   * row must hold no delivery: a shared lock queues up behind an exclusive one that waits.
   */
  async deadLetter(queue: Pick<Queue, 'id'>, positions: readonly Position[]): Promise<number> {
    return this.database.transaction(async (tx) => {
      const settings = await lockSettings(tx, queue.id);
      if (settings === undefined || settings.maxReceives === null || settings.deadLetterQueueId === null) return 0;
      const condition = `available_at <= ${NOW_MS} AND expires_at > ${NOW_MS} AND receive_count >= ${settings.maxReceives}`;
      const moving = await lockUnleased(tx, queue.id, positions, condition);
      if (moving.length > 0) await tx.finish([moveDeliveries(queue.id, settings.deadLetterQueueId, moving)]);
      return moving.length;
    });
  }

  /**
   * One move of a queue at a time: what the next claim meets meanwhile, the one after it meets
   * again.
   */
  private async deadLetterOnSight(queue: Queue, positions: readonly Position[]): Promise<void> {
    if (positions.length === 0 || this.moving.has(queue.id)) return;
    this.moving.add(queue.id);
    try {
      const moved = await this.deadLetter(queue, positions);
      if (moved > 0) this.observer.removedInClaim('dead-lettered', queue.name, moved);
    } finally {
      this.moving.delete(queue.id);
    }
  }
}

/** What dead-lettering goes by, with the queue's row locked, shared. Undefined: it was deleted. */
async function lockSettings(
  tx: Transaction,
  queueId: number,
): Promise<Pick<Queue, 'maxReceives' | 'deadLetterQueueId'> | undefined> {
  const [settings] = await tx.read<Pick<Queue, 'maxReceives' | 'deadLetterQueueId'>>(
    'SELECT max_receives AS maxReceives, dead_letter_queue_id AS deadLetterQueueId FROM queue WHERE id = ? AND name IS NOT NULL LOCK IN SHARE MODE',
    [queueId],
  );
  return settings;
}

const EXTEND: ReceiptVerb<ReceiptsRequest & { leaseSeconds: number }> = {
  apply: ({ queueId, leaseSeconds }, messageIds, now) => ({
    sql: `UPDATE delivery FORCE INDEX (PRIMARY)
           SET available_at = ?
           WHERE queue_id = ?
             AND message_id IN (?)`,
    values: [now + leaseSeconds * 1000 + LEASE_GRACE_MS, queueId, messageIds],
  }),
  secondOutcome: null,
  wasApplied: () => false,
};

const NACK: ReceiptVerb<ReceiptsRequest & { delaySeconds: number; reason?: string | undefined }> = {
  apply: ({ queueId, delaySeconds, reason }, messageIds, now) => ({
    sql: `UPDATE delivery FORCE INDEX (PRIMARY)
           SET available_at = ?,
               lease_token = ${NO_LEASE},
               nack_reason = ?
           WHERE queue_id = ?
             AND message_id IN (?)`,
    values: [now + delaySeconds * 1000, reason ?? null, queueId, messageIds],
  }),
  secondOutcome: 'lease-lost',
  // Before the lease's end nothing else can have taken it away, so whatever is in its position came
  // after.
  wasApplied: (row, isBeforeItsEnd) => isBeforeItsEnd || (row !== undefined && isNoLease(row.leaseToken)),
};
