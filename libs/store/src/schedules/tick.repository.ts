import {
  dueTicks,
  LIMITS,
  messageBytes,
  type ScheduledMessage,
  sizeLimits,
  tickMessage,
  TICKS_AT_ONCE,
} from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import { isDatabaseFailure, mayLieInOneRequest } from '../database/database-errors.js';
import type { ScheduleEntity } from '../entities/index.js';
import { storeIn } from '../messages/enqueue-in.js';
import type { PublishedMessage } from '../messages/publish.js';
import { publishIn } from '../messages/publish-in.js';

/** After a failure, such as a full queue, a schedule is due again after this time. */
const RETRY_MS = 10_000;
/** Schedules that one look at the database finds. */
const FOUND_AT_ONCE = 100;
/** The look also tells of ticks that are due within this time. */
const AHEAD_MS = 1000;
const FAILURE_CHARS = 1000;
/** The broker that stored the schedule has checked its message by its own limit. */
const LARGEST = sizeLimits(LIMITS.bodyBytesMost);

type DueRow = Pick<
  ScheduleEntity,
  'cron' | 'everySeconds' | 'timeZone' | 'queue' | 'topic' | 'message' | 'missed' | 'lastTickAt' | 'lastMessageId'
> & { nextAt: number; now: number };

/**
 * Enqueues or publishes the messages of schedules, by the database's clock. Any number of reapers
 * may do so.
 */
export class TickRepository {
  constructor(private readonly database: Database) {}

  /**
   * The schedules that are due, the longest due first, and the time until the next one is due: a
   * second at most. Takes no locks.
   */
  async due(): Promise<{ names: string[]; waitMs: number }> {
    const rows = await this.database.read<{ name: string; inMs: number }>(
      `SELECT name, CAST(due_at AS SIGNED) - CAST(${NOW_MS} AS SIGNED) AS inMs
       FROM schedule FORCE INDEX (schedule_due)
       WHERE due_at <= ${NOW_MS} + ${AHEAD_MS}
       ORDER BY due_at
       LIMIT ${FOUND_AT_ONCE}`,
    );
    const later = rows.find(({ inMs }) => inMs > 0);
    return {
      names: rows.flatMap(({ name, inMs }) => (inMs <= 0 ? [name] : [])),
      waitMs: Math.min(AHEAD_MS, later?.inMs ?? AHEAD_MS),
    };
  }

  /**
   * Enqueues what is due of a schedule, and returns the number of messages. If that is refused, for
   * example because the queue is full, the schedule keeps the reason and is due again later.
   *
   * Throws errors of the database. Nothing is enqueued then, or everything.
   */
  async enqueue(name: string): Promise<number> {
    try {
      return await this.enqueueSome(name, TICKS_AT_ONCE).catch((error: unknown) => {
        if (isOfDatabase(error)) throw error;
        // A full queue may still have room for one.
        return this.enqueueSome(name, 1);
      });
    } catch (error) {
      if (isOfDatabase(error)) throw error;
      await this.fail(name, error instanceof Error ? error.message : String(error));
      return 0;
    }
  }

  /**
   * One transaction stores the messages and moves the schedule on to its next tick. So a tick is
   * enqueued once, whatever becomes of a reaper or of the answer to its COMMIT.
   *
   * Locks: the schedule's row, without waiting: whoever holds it enqueues the tick, or changes the
   * schedule. Then the entry of each queue's name, shared, as every service's transaction does
   * (`storeIn`, `publishIn`).
   */
  private async enqueueSome(name: string, most: number): Promise<number> {
    return this.database.transaction(async (tx) => {
      const [row] = await tx.read<DueRow>(
        `SELECT cron, every_seconds AS everySeconds, time_zone AS timeZone, queue, topic, message, missed,
                next_at AS nextAt, last_tick_at AS lastTickAt, last_message_id AS lastMessageId, ${NOW_MS} AS now
         FROM schedule FORCE INDEX (PRIMARY)
         WHERE name = ?
           AND due_at <= ${NOW_MS}
         FOR UPDATE SKIP LOCKED`,
        [name],
      );
      if (row === undefined) return 0;
      const { ticks, nextAt } = dueTicks(row, row.missed, row.nextAt, row.now, most);
      const message = JSON.parse(row.message) as ScheduledMessage;
      const messages = ticks.map((tick) => toNewMessage(name, message, tick));
      const stored = messages.length === 0 ? [] : await store(tx, row, messages);
      const last = { tick: ticks.at(-1) ?? row.lastTickAt, id: stored.at(-1)?.id ?? row.lastMessageId };
      await tx.finish([
        {
          sql: `UPDATE schedule
                SET next_at = ?, due_at = ?, last_tick_at = ?, last_message_id = ?, last_failure = NULL
                WHERE name = ?`,
          values: [nextAt, nextAt, last.tick, last.id, name],
        },
      ]);
      return ticks.length;
    });
  }

  /** Keeps the reason, unless the schedule has been changed or its tick enqueued meanwhile. */
  private async fail(name: string, reason: string): Promise<void> {
    await this.database.write(
      `UPDATE schedule
       SET last_failure = ?, due_at = ${NOW_MS} + ${RETRY_MS}
       WHERE name = ?
         AND due_at <= ${NOW_MS}`,
      [reason.slice(0, FAILURE_CHARS), name],
    );
  }
}

async function store(
  tx: Transaction,
  { queue, topic }: Pick<DueRow, 'queue' | 'topic'>,
  messages: readonly PublishedMessage[],
): Promise<{ id: Buffer }[]> {
  if (topic !== null) return publishIn(tx, { topicName: topic, messages });
  return storeIn(tx, { queueName: queue as string, messages });
}

/** The others would fail as well. */
function isOfDatabase(error: unknown): boolean {
  return isDatabaseFailure(error) && !mayLieInOneRequest(error);
}

/**
 * The tick is also the message's deduplicationId: a schedule that is deleted and created again does
 * not repeat a tick.
 */
function toNewMessage(schedule: string, message: ScheduledMessage, tick: number): PublishedMessage {
  const { priority, delaySeconds, expiresInSeconds, groupId } = message;
  const deduplicationId = `${schedule} ${new Date(tick).toISOString()}`;
  const made = tickMessage(schedule, message, tick);
  const bytes = messageBytes(made, 0, LARGEST);
  const values = made.headers ?? {};
  return { ...bytes, values, priority, delaySeconds, expiresInSeconds, groupId, deduplicationId };
}
