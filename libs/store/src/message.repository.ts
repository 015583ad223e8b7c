import { randomBytes } from 'node:crypto';
import { LIMITS, RowmqError, type Receipt, type ReceiptErrorCode } from '@rowmq/contract';
import { clock } from './clock.js';
import type { Database, Transaction } from './database.js';
import { isDuplicateKey } from './database-errors.js';
import { type Candidate, CLAIM_ROUNDS, claim, giveBack, ids, withMessages } from './claim.sql.js';
import {
  deleteDeliveries,
  LEASE_GRACE_MS,
  lockQueue,
  moveDeliveries,
  type Position,
  takeUnleased,
} from './delivery.sql.js';
import { ClaimTurns } from './claim-turns.js';
import { DepthGauge } from './depth-gauge.js';
import { queueNotFound, type Queue } from './queue.repository.js';

/** A message as a producer sends it; sizes are checked by whoever made it. */
export interface NewMessage {
  /** UUIDv7, made before anything is stored, so that a repeated try is recognised. */
  id: Buffer;
  body: Buffer;
  /** JSON object of strings, or null. */
  headers: Buffer | null;
  /** 0-9, 9 the most urgent. */
  priority: number;
  /** The queue's when absent. */
  delaySeconds?: number | undefined;
  /** Capped by the queue's TTL, which also applies when absent. */
  expiresInSeconds?: number | undefined;
}

/** A delivery under lease, with its message. Times: ms since 1970 on the database's clock. */
export interface LeasedDelivery {
  messageId: Buffer;
  leaseToken: Buffer;
  body: Buffer;
  headers: Buffer | null;
  priority: number;
  receiveCount: number;
  expiresAt: number;
  leaseExpiresAt: number;
}

/** For each receipt, in the order given: null when it was done, else why not. */
export type ReceiptOutcomes = (Exclude<ReceiptErrorCode, 'invalid-request'> | null)[];

/** Moves time in tests: ms since 1970 instead of the database's clock. */
export interface Timed {
  now?: number;
}

interface LeaseRow {
  messageId: Buffer;
  leaseToken: Buffer | null;
  availableAt: number;
  now: number;
}

const TOKEN_BYTES = 8;
/**
 * Claims of one queue and broker that run at the same time. MySQL drains a queue twice as fast with two as with one, and no faster with three. MariaDB gains nothing from two, and its SKIP LOCKED
 * waits for an instant: two claims that meet in the wrong order count as a deadlock, and one is retried.
 */
const CLAIMS_AT_ONCE = { mysql: 2, mariadb: 1 };
/**
 * A message's life, in the order in which it is lived. Every method is one short READ COMMITTED transaction over a batch of one queue.
 *
 * Locks: whoever wants deliveries that are under no lease (claim, expire, dead-letter, redrive, purge) takes them through the index `delivery_next`, entry before row, and skips
 * what others hold. Whoever holds a lease (ack, nack, extend, release) takes its rows by primary key in ascending order, and their index entries after them. So the two meet only on a
 * lease that just runs out. Enqueue locks nothing that exists but the queue's row.
 */
export class MessageRepository {
  private readonly depths = new DepthGauge();
  private readonly turns: ClaimTurns;
  /** Queues that had a maximum depth when last seen. */
  private readonly bounded = new Set<string>();

  /** Told, after the fact, of deliveries that a claim removed on sight. */
  onSight: (event: 'expired' | 'dead-lettered', queue: Queue, count: number) => void = () => undefined;

  constructor(private readonly database: Database) {
    this.turns = new ClaimTurns(() => (database.isMariaDb ? CLAIMS_AT_ONCE.mariadb : CLAIMS_AT_ONCE.mysql));
  }

  /**
   * Stores messages with their deliveries, all or none; returns after COMMIT.
   *
   * Locks: the queue's row, shared (exclusively where it has a maximum depth, so that two cannot both take the last place); then new rows, which nobody else can
   * want. A try whose COMMIT got no answer is repeated with the same ids: meeting them means that it had committed.
   *
   * Throws `queue-not-found`, `queue-full`, and `invalid-request` for a message that would expire before its delay ends.
   */
  async enqueue(queueName: string, messages: readonly NewMessage[], { now }: Timed = {}): Promise<void> {
    if (messages.length === 0) return;
    for (let stored = false; !stored;) {
      const lock = this.bounded.has(queueName) ? 'exclusive' : 'shared';
      stored = await this.database.transaction((tx) => this.enqueueOnce(tx, queueName, messages, lock, now));
    }
  }

  /** Returns false, with nothing stored, if the queue turns out to have a maximum depth and its row is only locked shared. */
  private async enqueueOnce(
    tx: Transaction,
    queueName: string,
    messages: readonly NewMessage[],
    lock: 'shared' | 'exclusive',
    at: number | undefined,
  ): Promise<boolean> {
    const queue = await lockQueue(tx, queueName, lock, at);
    if (tx.commitUnknown) {
      const [stored] = await tx.read('SELECT 1 FROM message WHERE id = ?', [messages[0]?.id]);
      if (stored !== undefined) return true;
    }
    if (queue === undefined) {
      this.bounded.delete(queueName);
      throw queueNotFound(queueName);
    }
    if (queue.maxDepth === null) this.bounded.delete(queueName);
    else if (lock === 'shared') {
      this.bounded.add(queueName);
      return false;
    }
    const deliveries: unknown[][] = [];
    const rows: unknown[][] = [];
    for (const [index, message] of messages.entries()) {
      const { availableAt, expiresAt } = schedule(message, queue, index);
      rows.push([message.id, queue.id, message.body, message.headers, expiresAt]);
      deliveries.push([queue.id, message.id, LIMITS.priorityMax - message.priority, availableAt, expiresAt, 0]);
    }
    if (queue.maxDepth !== null) await this.depths.reserve(tx, queue.id, queue.maxDepth, messages.length);
    try {
      await tx.write('INSERT INTO message (id, queue_id, body, headers, expires_at) VALUES ?', [rows]);
    } catch (error) {
      if (tx.commitUnknown && isDuplicateKey(error)) return true;
      throw error;
    }
    await tx.write(
      'INSERT INTO delivery (queue_id, message_id, priority_rank, available_at, expires_at, receive_count) VALUES ?',
      [deliveries],
    );
    return true;
  }

  /**
   * Claims up to `maxMessages` deliveries under one lease, the most urgent first and within a priority the longest available first. Expired deliveries met on the
   * way are removed, over-received ones dead-lettered: correctness does not wait for the reaper.
   *
   * Locks: index entry, then row, of at most as many deliveries as are looked at; skips what others hold. A move to the dead-letter queue is a transaction of its own.
   *
   * Also throws `overloaded`, see {@link ClaimTurns}.
   */
  async dequeue(
    queue: Queue,
    options: { maxMessages: number; leaseSeconds: number } & Timed,
  ): Promise<LeasedDelivery[]> {
    return this.turns.take(queue.id, async () => {
      let current = queue;
      for (let round = 0; round < CLAIM_ROUNDS; round += 1) {
        const { leased, overReceived, expired } = await this.lease(current, options);
        if (expired > 0) this.onSight('expired', queue, expired);
        if (overReceived.length === 0) return leased;
        const move = this.moveToDeadLetterQueue(current, overReceived, options.now).then((done) => {
          if (done.moved > 0) this.onSight('dead-lettered', queue, done.moved);
          return done;
        });
        if (leased.length > 0) {
          // What is leased must reach its consumer even if the move fails: the next claim, or the reaper, tries it again.
          await move.catch(() => undefined);
          return leased;
        }
        current = (await move).queue;
      }
      return [];
    });
  }

  private async lease(
    queue: Queue,
    options: { maxMessages: number; leaseSeconds: number } & Timed,
  ): Promise<{ leased: LeasedDelivery[]; overReceived: Candidate[]; expired: number }> {
    const leaseToken = randomBytes(TOKEN_BYTES);
    /** By this try and those before it, whose COMMIT may have succeeded. */
    const claimed: Candidate[] = [];
    return this.database.transaction(async (tx) => {
      if (tx.commitUnknown) await giveBack(tx, queue.id, ids(claimed), leaseToken, options.now);
      const found = await claim(tx, queue, options.maxMessages, this.database.isMariaDb, options.now);
      const last = found.live.at(-1);
      claimed.push(...found.live);
      if (last === undefined) return { ...found, leased: [] };
      // From the last look on: what was found then may have become available after the first.
      const leaseExpiresAt = last.now + options.leaseSeconds * 1000;
      await tx.write(
        `UPDATE delivery FORCE INDEX (PRIMARY)
         SET available_at = ?,
             lease_token = ?,
             receive_count = LEAST(receive_count + 1, 65535)
         WHERE queue_id = ?
           AND message_id IN (?)`,
        [leaseExpiresAt + LEASE_GRACE_MS, leaseToken, queue.id, ids(found.live)],
      );
      return { ...found, leased: await withMessages(tx, found.live, leaseToken, leaseExpiresAt) };
    });
  }

  /** Moves the deadline of leases to `leaseSeconds` from now. The receipts stay valid. Also tells the new deadline, ms since 1970. */
  async extend(
    queueId: number,
    receipts: readonly Receipt[],
    options: { leaseSeconds: number } & Timed,
  ): Promise<{ outcomes: ReceiptOutcomes; leaseExpiresAt: number }> {
    let leaseExpiresAt = 0;
    const outcomes = await this.withLeases(queueId, receipts, options.now, {
      apply: async (tx, messageIds, now) => {
        leaseExpiresAt = now + options.leaseSeconds * 1000;
        await tx.write(
          `UPDATE delivery FORCE INDEX (PRIMARY)
           SET available_at = ?
           WHERE queue_id = ?
             AND message_id IN (?)`,
          [leaseExpiresAt + LEASE_GRACE_MS, queueId, messageIds],
        );
      },
      wasApplied: () => false,
    });
    return { outcomes, leaseExpiresAt };
  }

  /** Gives leased deliveries back, to be handed out again after `delaySeconds`. */
  async nack(
    queueId: number,
    receipts: readonly Receipt[],
    options: { delaySeconds: number; reason?: string | undefined } & Timed,
  ): Promise<ReceiptOutcomes> {
    return this.withLeases(queueId, receipts, options.now, {
      apply: async (tx, messageIds, now) => {
        await tx.write(
          `UPDATE delivery FORCE INDEX (PRIMARY)
           SET available_at = ?,
               lease_token = NULL,
               nack_reason = ?
           WHERE queue_id = ?
             AND message_id IN (?)`,
          [now + options.delaySeconds * 1000, options.reason ?? null, queueId, messageIds],
        );
      },
      wasApplied: (row) => row !== undefined && row.leaseToken === null,
    });
  }

  /** Gives back deliveries that were claimed for a consumer who never got them: available now, at the end of their priority, and the receive is not counted. Leases that are no longer held are left alone. */
  async release(
    queueId: number,
    deliveries: readonly { messageId: Buffer; leaseToken: Buffer }[],
    { now }: Timed = {},
  ): Promise<void> {
    for (const [token, messageIds] of groupByToken(deliveries)) {
      await this.database.transaction((tx) => giveBack(tx, queueId, messageIds, Buffer.from(token, 'latin1'), now));
    }
  }

  /** Settles leased deliveries: they are deleted and never handed out again. The messages' rows stay until they are reaped. */
  async ack(queueId: number, receipts: readonly Receipt[], { now }: Timed = {}): Promise<ReceiptOutcomes> {
    return this.withLeases(queueId, receipts, now, {
      apply: (tx, messageIds) => deleteDeliveries(tx, queueId, messageIds),
      wasApplied: (row) => row === undefined,
    });
  }

  /**
   * Does something to the deliveries whose lease is held, by token and by time, and tells for each receipt what became of it.
   *
   * Locks: the rows, in primary-key order, for as long as `apply` and the COMMIT take.
   * `wasApplied` recognises, after a try whose COMMIT got no answer, a delivery for which that try had committed.
   */
  private async withLeases(
    queueId: number,
    receipts: readonly Receipt[],
    at: number | undefined,
    verb: {
      apply: (tx: Transaction, messageIds: Buffer[], now: number) => Promise<void>;
      wasApplied: (row: LeaseRow | undefined) => boolean;
    },
  ): Promise<ReceiptOutcomes> {
    if (receipts.length === 0) return [];
    const heldBefore = new Set<Receipt>();
    return this.database.transaction(async (tx) => {
      const rows = await tx.read<LeaseRow>(
        `SELECT message_id AS messageId, lease_token AS leaseToken, available_at AS availableAt, ${clock(at)} AS now
         FROM delivery FORCE INDEX (PRIMARY)
         WHERE queue_id = ?
           AND message_id IN (?)
         ORDER BY message_id
         FOR UPDATE`,
        [queueId, receipts.map(({ messageId }) => messageId)],
      );
      const byId = new Map(rows.map((row) => [row.messageId.toString('latin1'), row]));
      const held: Buffer[] = [];
      const outcomes = receipts.map((receipt): ReceiptOutcomes[number] => {
        const row = byId.get(receipt.messageId.toString('latin1'));
        if (
          row !== undefined &&
          row.leaseToken?.equals(receipt.leaseToken) &&
          row.availableAt - LEASE_GRACE_MS > row.now
        ) {
          held.push(receipt.messageId);
          heldBefore.add(receipt);
          return null;
        }
        if (tx.commitUnknown && heldBefore.has(receipt) && verb.wasApplied(row)) return null;
        return row === undefined ? 'delivery-not-found' : 'lease-lost';
      });
      if (held.length > 0) await verb.apply(tx, held, (rows[0] as LeaseRow).now);
      return outcomes;
    });
  }

  /**
   * Removes deliveries among these that are past their expiry and under no lease. Returns how many.
   * Locks: like a claim, see {@link takeUnleased}.
   */
  async expire(queueId: number, positions: readonly Position[], { now }: Timed = {}): Promise<number> {
    return this.database.transaction(async (tx) => {
      const expired = await takeUnleased(tx, queueId, positions, `expires_at <= ${clock(now)}`, now);
      await deleteDeliveries(tx, queueId, expired);
      return expired.length;
    });
  }

  /** Dead-letters deliveries among these that were received too often and are available again. Returns how many. */
  async deadLetter(queue: Queue, positions: readonly Position[], { now }: Timed = {}): Promise<number> {
    return (await this.moveToDeadLetterQueue(queue, positions, now)).moved;
  }

  /**
   * Moves over-received deliveries, by the settings as they are now: the caller's may be a second old, and the dead-letter queue gone. Returns those settings too.
   *
   * Locks: the queue's row, shared, so that its dead-letter queue cannot be changed and then deleted; after it the deliveries, like a claim. In this order, since who waits
   * for a queue's row must hold no delivery: a shared lock queues up behind an exclusive one that waits.
   */
  private async moveToDeadLetterQueue(
    queue: Queue,
    positions: readonly Position[],
    at: number | undefined,
  ): Promise<{ moved: number; queue: Queue }> {
    return this.database.transaction(async (tx) => {
      const [settings] = await tx.read<Pick<Queue, 'maxReceives' | 'deadLetterQueueId'>>(
        'SELECT max_receives AS maxReceives, dead_letter_queue_id AS deadLetterQueueId FROM queue WHERE id = ? AND name IS NOT NULL LOCK IN SHARE MODE',
        [queue.id],
      );
      const current = { ...queue, maxReceives: null, deadLetterQueueId: null, ...settings };
      const { maxReceives, deadLetterQueueId } = current;
      if (maxReceives === null || deadLetterQueueId === null) return { moved: 0, queue: current };
      const condition = `available_at <= ${clock(at)} AND expires_at > ${clock(at)} AND receive_count >= ${maxReceives}`;
      const moving = await takeUnleased(tx, queue.id, positions, condition, at);
      await moveDeliveries(tx, queue.id, deadLetterQueueId, moving, at);
      return { moved: moving.length, queue: current };
    });
  }
}

/** When a message becomes available and when it expires, on the database's clock. */
function schedule(
  message: NewMessage,
  queue: Queue & { now: number },
  index: number,
): { availableAt: number; expiresAt: number } {
  const delaySeconds = message.delaySeconds ?? queue.delaySeconds;
  const lifeSeconds = Math.min(message.expiresInSeconds ?? queue.messageTtlSeconds, queue.messageTtlSeconds);
  if (delaySeconds >= lifeSeconds) {
    throw new RowmqError(
      'invalid-request',
      `Message ${index} would expire after ${lifeSeconds} s, before its delay of ${delaySeconds} s ends, and never be delivered; shorten the delay or let it live longer.`,
    );
  }
  return { availableAt: queue.now + delaySeconds * 1000, expiresAt: queue.now + lifeSeconds * 1000 };
}

function groupByToken(deliveries: readonly { messageId: Buffer; leaseToken: Buffer }[]): Map<string, Buffer[]> {
  const groups = new Map<string, Buffer[]>();
  for (const { messageId, leaseToken } of deliveries) {
    const token = leaseToken.toString('latin1');
    groups.set(token, [...(groups.get(token) ?? []), messageId]);
  }
  return groups;
}
