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
import type { Queue } from '../queues/queue.js';
import { QueueRepository } from '../queues/queue.repository.js';
import { ScanFloors } from './scan-floors.js';
import { NO_OBSERVER, type StoreObserver } from '../store-observer.js';

export interface DequeueOutcome {
  /** One list for each demand, in the request's order. */
  leased: LeasedDelivery[][];
  /**
   * True if some demands got too little and the queue may hold more: claim again before you call it
   * empty. The promise settles at once unless nothing was leased. It never rejects.
   */
  claimAgain: Promise<boolean>;
}

/**
 * Everything that happens to a message, in the order of its life.
 *
 * A method accepts a batch: requests of any number of clients and queues. It carries them out in
 * one short READ COMMITTED transaction where possible, because the commit is the main cost.
 *
 * A method returns after COMMIT, with an outcome for each request. If it throws, it has changed
 * nothing. The exception is a COMMIT without an answer: the error then says that its result is
 * unknown.
 *
 * `docs/locking.md` lists the locks of each method and argues that no two can deadlock.
 */
export class MessageRepository {
  private readonly enqueuing: Enqueue;
  private readonly claims: Claim;
  private readonly receipts: Receipts;
  /** Queues whose over-received deliveries a claim is moving to the dead-letter queue. */
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
   * Stores messages with their deliveries, each request all or none. Each queue with a maximum
   * depth has a transaction of its own, after the one for all other queues.
   *
   * The outcome of a refused request is `queue-not-found`, `queue-full` or `invalid-request`. The
   * last means that a message would expire before its delay ends.
   *
   * If a COMMIT gets no answer, the broker repeats the transaction with the same message ids. If it
   * finds these ids, the first COMMIT succeeded.
   *
   * Locks: `lockQueues` in enqueue.ts.
   * @param onlyUnbounded refuse requests for queues with a maximum depth, so that they cannot delay
   * the others; their outcome is {@link BoundedQueueError}
   */
  async enqueue(
    requests: readonly EnqueueRequest[],
    { onlyUnbounded = false }: { onlyUnbounded?: boolean } = {},
  ): Promise<EnqueueOutcome[]> {
    return this.enqueuing.run(requests, onlyUnbounded);
  }

  /**
   * Leases ready deliveries to consumers, with one claim per queue for all of its consumers. The
   * most urgent come first, then those that have been available longest. The consumer who came
   * first gets them.
   *
   * The claim deletes expired deliveries that it meets. Over-received ones go to the dead-letter
   * queue in a transaction of their own. Correctness therefore does not depend on the reaper.
   *
   * Peek: `peekQueues`; locks: `lockSeen`; leases: `leaseDeliveries`, all in claim.sql.ts.
   * `ScanFloors` says at which index position a claim starts to read.
   */
  async dequeue(requests: readonly DequeueRequest[]): Promise<DequeueOutcome[]> {
    const claimed = await this.claims.run(requests);
    return claimed.map((claim, index) => {
      const { queue } = requests[index] as DequeueRequest;
      const expired = claim.locked.expired.length;
      if (expired > 0) this.observer.removedInClaim('expired', queue.name, expired);
      return { leased: claim.leased, claimAgain: this.finishClaim(queue, claim) };
    });
  }

  /**
   * Dead-letters the over-received deliveries that a claim met, and rescans below the scan floor.
   * Returns whether a further claim may find more.
   *
   * The leased messages must not wait for this work, nor get lost if it fails. The next claim or
   * the reaper repeats it.
   */
  private async finishClaim(queue: Queue, claim: Claimed): Promise<boolean> {
    const { live, expired, overReceived } = claim.locked;
    const moved = this.deadLetterOnSight(queue, overReceived).catch(() => undefined);
    if (live.length === 0) await moved;
    const isBelow = await this.claims.rescan(queue.id, live.length === 0);
    return claim.isShort && (isBelow || expired.length + overReceived.length + claim.missed > 0);
  }

  /**
   * Returns those of these queues that have ready deliveries, by one statement without locks. Other
   * transactions may have locked these deliveries.
   */
  async poll(queueIds: readonly number[]): Promise<Set<number>> {
    return this.claims.poll(queueIds);
  }

  /**
   * Moves the deadlines of leases to `leaseSeconds` from now. The receipts stay valid. Returns the
   * new deadlines in ms since 1970. Locks: `lockLeases` in receipts.ts; update: `EXTEND` below.
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
   * Ends leases and makes their deliveries ready again after `delaySeconds`. Locks: `lockLeases` in
   * receipts.ts; update: `NACK` below.
   */
  async nack(
    requests: readonly (ReceiptsRequest & { delaySeconds: number; reason?: string | undefined })[],
  ): Promise<ReceiptOutcomes[]> {
    const { outcomes } = await this.receipts.change(requests, NACK);
    this.claims.forgetReadAhead(requests.map(({ queueId }) => queueId));
    return outcomes;
  }

  /**
   * Moves leased deliveries to the dead-letter queue, whatever their receive count. Throws
   * `invalid-request` if the queue has no dead-letter queue.
   *
   * Locks: the queue's row, shared, as in {@link deadLetter}; then `lockLeases` in receipts.ts.
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
   * Undoes leases whose messages reached no consumer. The deliveries become available now, behind
   * the others of their priority, and the receive does not count. Leases that ran out stay as they
   * are. Each lease token has a statement of its own, so an error may leave some leases in force.
   * Locks and update: `releaseLeases` in claim.sql.ts.
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
   * Deletes leased deliveries, so their messages are never handed out again. The reaper removes the
   * bodies later, with their partition: `PartitionRepository.dropSettled`. Locks and deletes:
   * `deleteLeased` in receipts.ts.
   */
  async ack(requests: readonly ReceiptsRequest[]): Promise<ReceiptOutcomes[]> {
    return this.receipts.delete(requests);
  }

  /**
   * Deletes those of these deliveries that have expired and are under no lease. Returns their
   * number. Locks: `lockUnleased` in delivery.sql.ts.
   */
  async expire(queueId: number, positions: readonly Position[]): Promise<number> {
    return this.database.transaction(async (tx) => {
      const expired = await lockUnleased(tx, queueId, positions, `expires_at <= ${NOW_MS}`);
      if (expired.length > 0) await tx.finish([deleteDeliveries(queueId, expired)]);
      return expired.length;
    });
  }

  /**
   * Dead-letters those of these deliveries that are available and over-received by the queue's
   * current settings. Returns their number.
   *
   * Locks: `lockSettings` below, then `lockUnleased` in delivery.sql.ts. The shared lock on the
   * queue's row keeps its dead-letter queue from being replaced and deleted. The queue's row comes
   * first because a transaction that waits for it must hold no delivery. Even a shared lock waits
   * behind an exclusive lock that itself waits.
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
   * Dead-letters over-received deliveries that a claim met, one move of a queue at a time. If a
   * move is running, the deliveries stay, and a later claim meets them again.
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

/**
 * Locks the queue's row, shared, and returns its dead-letter settings. Undefined means that the
 * queue was deleted.
 */
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
  // Before the lease's end only the nack can have ended it. Any other state of the row came later.
  wasApplied: (row, isBeforeItsEnd) => isBeforeItsEnd || (row !== undefined && isNoLease(row.leaseToken)),
};
