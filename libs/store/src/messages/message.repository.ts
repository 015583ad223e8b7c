import { Logger } from '@nestjs/common';
import { type MoveCause, type Receipt, RowmqError } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import { finish, lockGroupsOf } from '../groups/finish.js';
import { Follow } from '../groups/follow.js';
import { inQueue, ONLY_RANK } from '../groups/group.js';
import type { Queue } from '../queues/queue.js';
import { QueueRepository } from '../queues/queue.repository.js';
import { TopicCache } from '../topics/topic-cache.js';
import { NO_OBSERVER, type StoreObserver } from '../store-observer.js';
import { Cancel } from './cancel.js';
import { LateReceipts, type LateWish } from './late.js';
import { Claim, type Claimed, type ClaimRequest } from './claim.js';
import { LEASE_GRACE_MS, lockUnleased, NO_TOKEN, type Position } from './delivery.sql.js';
import { Enqueue, type EnqueueOutcome } from './enqueue.js';
import type { Reserve } from './hand-off.js';
import type { EnqueueRequest } from './new-message.js';
import type { LeasedMessage } from './leased-message.js';
import { countAll } from './members.js';
import { moveAll, type MoveTarget, moveTo } from './move.js';
import { Poll } from './poll.js';
import { Publish, type PublishOutcome, type PublishRequest } from './publish.js';
import { type Handled, OneMessage, type Wish } from './one-message.js';
import { QueueViews } from './queue-view.js';
import { Receipts, type ReceiptVerb, type ReceiptOutcomes, type ReceiptsRequest, SETTLE } from './receipts.js';

/** The result of a claim for one queue. */
export interface ClaimOutcome {
  /** One list for each demand, in the request's order. */
  leased: LeasedMessage[][];
  /**
   * True if some demands got too little and the queue may hold more: claim again before you call it
   * empty. The promise settles at once unless nothing was leased. It never rejects.
   */
  claimAgain: Promise<boolean>;
}

/** The messages are available again after `delaySeconds`. */
export interface NackRequest extends ReceiptsRequest {
  delaySeconds: number;
  /** Without one, an earlier reason goes. */
  reason?: string | undefined;
  /**
   * For SQS: the messages are available at once, and {@link MessageRepository.late} takes their
   * receipts until somebody receives them. In an ordered queue the receipts end all the same.
   */
  keepsReceipts?: boolean | undefined;
}

/** Without a delay: the messages are available at once. Without a reason: an earlier one stays. */
export interface ReleaseRequest extends ReceiptsRequest {
  delaySeconds?: number | undefined;
  reason?: string | undefined;
}

/**
 * Everything that happens to a message, in the order of its life.
 *
 * Most methods accept a batch: requests of any number of clients and queues. It carries them out in
 * one short READ COMMITTED transaction, because the commit is the main cost.
 *
 * A method returns after COMMIT, with an outcome for each request. If it throws, it has changed
 * nothing. The exception is a COMMIT without an answer: the error then says that its result is
 * unknown.
 *
 * All verbs but enqueue and ack work alike. They lock deliveries, compute the rows that take their
 * place (`split`), and write them (`rewrite`). `docs/locking.md` lists the locks of each method and
 * argues that no two can deadlock.
 */
export class MessageRepository {
  private readonly enqueuing: Enqueue;
  private readonly publishing: Publish;
  private readonly claims: Claim;
  private readonly polls: Poll;
  private readonly following: Follow;
  private readonly cancels: Cancel;
  private readonly single: OneMessage;
  private readonly lateReceipts: LateReceipts;
  private readonly receipts: Receipts;
  private readonly views = new QueueViews();
  /** Queues whose over-received deliveries a claim is moving to the dead-letter queue. */
  private readonly moving = new Set<number>();

  /** @param makePackId for tests that move time. Ordered queues take it from the database. */
  constructor(
    private readonly database: Database,
    private readonly observer: StoreObserver = NO_OBSERVER,
    queues = new QueueRepository(database),
    makePackId?: () => Buffer,
    topics = new TopicCache(database),
  ) {
    const logger = new Logger(MessageRepository.name);
    const undo = {
      release: async (queueId: number, receipts: readonly LeasedMessage[]) => {
        await this.release([{ queueId, receipts }]);
      },
      report: (failure: string) => logger.error(failure),
    };
    this.enqueuing = new Enqueue(database, queues, this.views, undo, makePackId);
    this.publishing = new Publish(database, topics, this.enqueuing, makePackId);
    this.claims = new Claim(database, this.views);
    this.polls = new Poll(database, this.views, observer);
    this.following = new Follow(database);
    this.receipts = new Receipts(database);
    this.cancels = new Cancel(database);
    this.single = new OneMessage(database);
    this.lateReceipts = new LateReceipts(database);
  }

  /**
   * Stores messages with their deliveries, each request all or none, and gives them their ids.
   * Messages for which a consumer waits are stored under a lease and handed off after COMMIT.
   *
   * The outcome of a refused request is an error with the code `queue-not-found`, `queue-full` or
   * `invalid-request`. The last means that a message would expire before its delay ends.
   *
   * If a COMMIT gets no answer, the broker repeats the transaction with the same ids. If it finds
   * them, the first COMMIT succeeded.
   *
   * Messages with a group cost another round trip, which finds their places (`FairPlaces`). They
   * may be for queues without ordering only.
   *
   * Locks and inserts: `storeBatches` in enqueue.sql.ts.
   * @param reserve finds parked consumers. Default: no message is handed off.
   */
  async enqueue(
    requests: readonly EnqueueRequest[],
    { reserve = () => [] }: { reserve?: Reserve } = {},
  ): Promise<EnqueueOutcome[]> {
    return this.enqueuing.run(requests, reserve);
  }

  /**
   * Stores messages of ordered queues. The outcomes are those of {@link enqueue}. A message whose
   * group owes no other may be handed off.
   *
   * Locks: the queues' rows, shared, in id order; records of duplicates, then the groups' rows,
   * exclusive, in the order of their keys.
   */
  async enqueueInOrder(
    requests: readonly EnqueueRequest[],
    { reserve = () => [] }: { reserve?: Reserve } = {},
  ): Promise<EnqueueOutcome[]> {
    return this.enqueuing.run(requests, reserve, true);
  }

  /**
   * Stores messages of topics once, with a delivery for each subscription that wants them. Each
   * request is stored all or none, for all of its subscriptions. Otherwise as {@link enqueue}.
   *
   * The outcome of a refused request is an error with the code `topic-not-found`,
   * `idempotency-key-reused` or `enqueue-in-progress`, or with `queue-full` or `invalid-request` of
   * one of the queues.
   *
   * Messages of a group reach ordered queues in one order. A batch with such messages takes a
   * second round trip, so a broker does not mix them with others.
   *
   * Locks and inserts: `storePublished` in publish.ts, or `commitInOrder`.
   */
  async publish(
    requests: readonly PublishRequest[],
    { reserve = () => [] }: { reserve?: Reserve } = {},
  ): Promise<PublishOutcome[]> {
    return this.publishing.run(requests, reserve);
  }

  /**
   * Another broker says that messages became ready in this queue. The next claim looks in every
   * priority, also in those that no claim here has seen lately.
   */
  expectMore(queueId: number): void {
    this.views.of(queueId).expectMore();
  }

  /**
   * Leases ready messages to consumers of one or several queues. In each queue, the most urgent
   * come first, then those that have been available longest. The consumer who came first gets them.
   *
   * The claim deletes expired deliveries that it meets. Over-received ones go to the dead-letter
   * queue in a transaction of their own. Correctness therefore does not depend on the reaper.
   *
   * Peek, locks and leases: claim.ts. `QueueView` says at which index position a claim starts.
   * @param requests one for each queue
   */
  async claim(requests: readonly ClaimRequest[]): Promise<ClaimOutcome[]> {
    const claimed = await this.claims.run(requests);
    const rescan = this.polls.rescan(
      requests.map(({ queue: { id: queueId } }, index) => ({ queueId, isEmpty: isEmpty(claimed[index] as Claimed) })),
    );
    return requests.map(({ queue }, index) => {
      const ofQueue = claimed[index] as Claimed;
      if (ofQueue.expired > 0) this.observer.removedInClaim('expired', queue.name, ofQueue.expired);
      return { leased: ofQueue.leased, claimAgain: this.finishClaim(queue, ofQueue, rescan) };
    });
  }

  /**
   * Leases the next messages of the groups that one consumer has just got from an ordered queue. In
   * each group it stops at the first message that another consumer holds or that is delayed. Their
   * leases end when those of the groups' first messages do. Returns `room` messages at most.
   *
   * Walk, locks and leases: groups/follow.ts.
   */
  async follow({ id }: Pick<Queue, 'id'>, leased: readonly LeasedMessage[], room: number): Promise<LeasedMessage[]> {
    return this.following.run(id, leased, room);
  }

  /**
   * Removes the deliveries that a claim met and could not remove itself. Returns whether a further
   * claim may find more.
   *
   * The leased messages must not wait for this work and the rescan, nor get lost if these fail. The
   * next claim or the reaper repeats them. Only a queue that would otherwise count as empty waits.
   */
  private async finishClaim(queue: Queue, claimed: Claimed, rescan: Promise<ReadonlySet<number>>): Promise<boolean> {
    const { expired, overReceived, expiredLater, missed, isShort, leftMore } = claimed;
    const moved = this.removeOnSight(queue, claimed).catch(() => undefined);
    if (isEmpty(claimed)) await moved;
    const isBelow = isEmpty(claimed) && (await rescan).has(queue.id);
    const met = expired + overReceived.length + expiredLater.length + missed;
    // Another broker may have claimed a part of a delivery between the peek and the lock.
    return isShort && (leftMore || isBelow || met > 0);
  }

  /**
   * Returns those of these queues that have ready deliveries, by one statement without locks. Other
   * transactions may have locked these deliveries.
   */
  async poll(queueIds: readonly number[]): Promise<Set<number>> {
    return this.polls.run(queueIds);
  }

  /**
   * Moves the deadlines of leases to `leaseSeconds` from now. The receipts stay valid. Returns the
   * new deadlines in ms since 1970. Locks: `lockHeld` in receipts.ts.
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

  /** Ends leases and makes their messages ready again. Locks: `lockHeld` in receipts.ts. */
  async nack(requests: readonly NackRequest[]): Promise<ReceiptOutcomes[]> {
    return (await this.receipts.change(requests, NACK)).outcomes;
  }

  /**
   * Moves leased messages to the dead-letter queue, whatever their receive count. Throws
   * `invalid-request` if the queue has no dead-letter queue.
   *
   * Locks: the queue's row, shared, as in {@link deadLetter}; then `lockHeld` in receipts.ts.
   */
  async reject(request: ReceiptsRequest & { reason?: string | undefined }): Promise<ReceiptOutcomes> {
    let target: MoveTarget | null = null;
    const verb: ReceiptVerb<ReceiptsRequest> = {
      begin: async (tx) => {
        target = (await lockSettings(tx, request.queueId))?.target ?? null;
        if (target !== null) return target.id;
        throw new RowmqError(
          'invalid-request',
          'The queue has no dead-letter queue; set its deadLetterQueue, or nack without deadLetter.',
        );
      },
      fate: (_, delivery, now) => moveTo(target as MoveTarget, delivery, now, 'rejected', request.reason),
      secondOutcome: 'delivery-not-found',
      reach: 'alone',
    };
    const { outcomes } = await this.receipts.change([request], verb);
    return outcomes[0] as ReceiptOutcomes;
  }

  /**
   * Undoes leases whose messages no consumer began to handle. The messages become available after
   * `delaySeconds`, behind the others of their priority, and the receive does not count. Leases
   * that ran out stay as they are. Locks: `lockHeld` in receipts.ts.
   */
  async release(requests: readonly ReleaseRequest[]): Promise<ReceiptOutcomes[]> {
    return (await this.receipts.change(requests, RELEASE)).outcomes;
  }

  /**
   * Settles leased messages, so they are never handed out again. The reaper removes the bodies
   * later, with their partition: `PartitionRepository.dropSettled`. Locks and deletes:
   * `settleStatements` in receipts.ts.
   */
  async ack(requests: readonly ReceiptsRequest[]): Promise<ReceiptOutcomes[]> {
    return this.receipts.settle(requests);
  }

  /**
   * Settles a message that is ready or delayed, in every one of these queues that owes it. Returns
   * the queues. Throws `delivery-not-found`, and `message-leased` if a consumer holds it.
   *
   * Reads and locks: cancel.ts.
   */
  async cancel(messageId: Buffer, queueIds: readonly number[]): Promise<number[]> {
    return this.cancels.run(messageId, queueIds);
  }

  /**
   * Acks, releases, redrives or moves a message for an operator, in every one of these queues that
   * owes it, also if a consumer holds it. Returns where it was and where it is.
   *
   * Reads, locks and errors: one-message.ts.
   */
  async fulfil(messageId: Buffer, queueIds: readonly number[], wish: Wish): Promise<Handled[]> {
    return this.single.run(messageId, queueIds, wish);
  }

  /**
   * Acks or extends, for SQS, with receipts whose lease has run out. It can until somebody else
   * receives the message, and returns whether it could. Locks: late.ts.
   */
  async late(queueId: number, receipts: readonly Receipt[], wish: LateWish): Promise<boolean[]> {
    return Promise.all(receipts.map(async (receipt) => this.lateReceipts.run(queueId, receipt, wish)));
  }

  /**
   * {@link ack} for ordered queues: the next messages of the groups become ready. Locks: `lockHeld`
   * in receipts.ts, then the groups.
   */
  async ackInOrder(requests: readonly ReceiptsRequest[]): Promise<ReceiptOutcomes[]> {
    const { outcomes, now } = await this.receipts.change(requests, SETTLE);
    // No receipt was one: there is no time either.
    if (now > 0) {
      for (const { queueId } of requests) this.views.of(queueId).lower({ priorityRank: ONLY_RANK, availableAt: now });
    }
    return outcomes;
  }

  /**
   * Settles those of these deliveries that have expired and are under no lease, unless the queue
   * keeps expired messages by now. Returns the number of their messages. Locks: their groups, then
   * `lockUnleased` in delivery.sql.ts.
   *
   * It settles what had expired when it read the settings. So a change of them needs no lock: what
   * expires after the change is kept.
   *
   * After a COMMIT without an answer, the repeat finds none of the deliveries that the first try
   * settled. It is harmless, but does not count their messages.
   */
  async expire(queueId: number, positions: readonly Position[]): Promise<number> {
    return this.database.transaction(async (tx) => {
      const [settings] = await tx.read<{ keepsExpired: number; now: number }>(
        `SELECT dead_letter_expired <> 0 AND dead_letter_queue_id IS NOT NULL AND name IS NOT NULL AS keepsExpired,
                ${NOW_MS} AS now
         FROM queue FORCE INDEX (PRIMARY)
         WHERE id = ?`,
        [queueId],
      );
      if (settings === undefined || settings.keepsExpired !== 0) return 0;
      const groups = await lockGroupsOf(tx, inQueue(queueId, positions));
      const expired = await lockUnleased(tx, queueId, positions, `d.expires_at <= ${settings.now}`);
      await finish(tx, expired, [], groups);
      return countAll(expired);
    });
  }

  /**
   * Dead-letters those of these deliveries that have expired and are under no lease, if the queue
   * keeps expired messages. Returns the number of their messages. Locks: as {@link deadLetter}.
   */
  async deadLetterExpired(queue: Pick<Queue, 'id'>, positions: readonly Position[]): Promise<number> {
    return this.moveToDeadLetters(queue, positions, 'expired', ({ deadLetterExpired }) =>
      deadLetterExpired === 0 ? null : `d.expires_at <= ${NOW_MS}`,
    );
  }

  /**
   * Dead-letters those of these deliveries that are available and over-received by the queue's
   * current settings. Returns the number of their messages.
   *
   * Locks: `lockSettings` below, the groups in both queues, then `lockUnleased` in
   * delivery.sql.ts. The shared lock on the
   * queue's row keeps its dead-letter queue from being replaced and deleted. The queue's row comes
   * first because a transaction that waits for it must hold no delivery. Even a shared lock waits
   * behind an exclusive lock that itself waits.
   *
   * After a COMMIT without an answer, the repeat finds none of the deliveries that the first try
   * moved: they are in another queue. It is harmless, but does not count their messages.
   */
  async deadLetter(queue: Pick<Queue, 'id'>, positions: readonly Position[]): Promise<number> {
    return this.moveToDeadLetters(queue, positions, 'max-receives', ({ maxReceives }) =>
      maxReceives === null
        ? null
        : `d.available_at <= ${NOW_MS} AND d.expires_at > ${NOW_MS} AND d.receive_count >= ${maxReceives}`,
    );
  }

  /** @param conditionOf Null: by the queue's current settings nothing moves. */
  private async moveToDeadLetters(
    queue: Pick<Queue, 'id'>,
    positions: readonly Position[],
    cause: MoveCause,
    conditionOf: (settings: DeadLetterSettings) => string | null,
  ): Promise<number> {
    return this.database.transaction(async (tx) => {
      const settings = await lockSettings(tx, queue.id);
      const condition = settings === undefined ? null : conditionOf(settings);
      if (settings === undefined || settings.target === null || condition === null) return 0;
      const { target, now } = settings;
      const groups = await lockGroupsOf(
        tx,
        [queue.id, target.id].flatMap((id) => inQueue(id, positions)),
      );
      const moving = await lockUnleased(tx, queue.id, positions, condition);
      await finish(tx, moving, moveAll(moving, target, now, cause), groups);
      return countAll(moving);
    });
  }

  /**
   * Removes deliveries that a claim met and could not remove itself, for one claim of a queue at a
   * time. If this is running, the deliveries stay, and a later claim meets them again.
   */
  private async removeOnSight(
    queue: Queue,
    { overReceived, expiredLater, keepsExpired }: Pick<Claimed, 'overReceived' | 'expiredLater' | 'keepsExpired'>,
  ): Promise<void> {
    const settled = keepsExpired ? [] : expiredLater;
    if (overReceived.length + expiredLater.length === 0 || this.moving.has(queue.id)) return;
    this.moving.add(queue.id);
    try {
      const expired = settled.length === 0 ? 0 : await this.expire(queue.id, settled);
      if (expired > 0) this.observer.removedInClaim('expired', queue.name, expired);
      const kept = expiredLater.length === 0 || !keepsExpired ? 0 : await this.deadLetterExpired(queue, expiredLater);
      const moved = kept + (overReceived.length === 0 ? 0 : await this.deadLetter(queue, overReceived));
      if (moved > 0) this.observer.removedInClaim('dead-lettered', queue.name, moved);
    } finally {
      this.moving.delete(queue.id);
    }
  }
}

function isEmpty({ leased }: Pick<Claimed, 'leased'>): boolean {
  return leased.every(({ length }) => length === 0);
}

/** A queue's settings for dead-lettering, and the database's time. */
interface DeadLetterSettings {
  maxReceives: number | null;
  deadLetterExpired: number;
  target: MoveTarget | null;
  now: number;
}

/**
 * Locks the queue's row, shared. Returns its settings for dead-lettering and the database's time.
 * Undefined means that the queue was deleted.
 *
 * The dead-letter queue's row needs no lock: nobody deletes it while this queue names it.
 */
async function lockSettings(tx: Transaction, queueId: number): Promise<DeadLetterSettings | undefined> {
  const [settings] = await tx.read<Omit<DeadLetterSettings, 'target'> & { deadLetterQueueId: number | null }>(
    `SELECT max_receives AS maxReceives, dead_letter_queue_id AS deadLetterQueueId,
            dead_letter_expired AS deadLetterExpired, ${NOW_MS} AS now
     FROM queue FORCE INDEX (PRIMARY)
     WHERE id = ?
       AND name IS NOT NULL
     LOCK IN SHARE MODE`,
    [queueId],
  );
  if (settings === undefined) return undefined;
  const [target] = await tx.read<MoveTarget>(
    'SELECT id, message_ttl_seconds AS messageTtlSeconds FROM queue WHERE id = ?',
    [settings.deadLetterQueueId],
  );
  return { ...settings, target: target ?? null };
}

const EXTEND: ReceiptVerb<ReceiptsRequest & { leaseSeconds: number }> = {
  fate: ({ leaseSeconds }, _, now) => ({ availableAt: now + leaseSeconds * 1000 + LEASE_GRACE_MS }),
  secondOutcome: null,
  reach: 'whole',
};

const NACK: ReceiptVerb<NackRequest> = {
  fate: ({ delaySeconds, reason, keepsReceipts = false }, { groupKey }, now) =>
    keepsReceipts && groupKey === null
      ? { availableAt: now }
      : { leaseToken: NO_TOKEN, availableAt: now + delaySeconds * 1000, nackReason: reason ?? null },
  secondOutcome: 'lease-lost',
  reach: 'with-later',
};

const RELEASE: ReceiptVerb<ReleaseRequest> = {
  fate: ({ delaySeconds = 0, reason }, { receiveCount }, now) => ({
    leaseToken: NO_TOKEN,
    availableAt: now + delaySeconds * 1000,
    receiveCount: receiveCount - 1,
    ...(reason !== undefined && { nackReason: reason }),
  }),
  secondOutcome: 'lease-lost',
  reach: 'with-later',
};
