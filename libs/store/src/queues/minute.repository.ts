import type { HistoryAnswer, QueueRates } from '@rowmq/contract';
import { Between, type FindOptionsWhere, In } from 'typeorm';
import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import { QueueMinuteEntity } from '../entities/index.js';
import type { DeliveryStats } from './browse.repository.js';

/** An event of a queue's messages that a minute counts. */
export type MinuteEvent = (typeof EVENTS)[number];

const EVENTS = ['enqueued', 'dequeued', 'acked', 'nacked', 'deadLettered', 'expired', 'purged', 'redriven'] as const;

const COLUMNS = EVENTS.map((event) => (event === 'deadLettered' ? 'dead_lettered' : event));

/** Numbers of messages by event. */
export type EventCounts = Partial<Record<MinuteEvent, number>>;

const DEPTHS = ['ready_count', 'delayed_count', 'leased_count', 'waiting_count', 'oldest_ready_seconds'];

/** Queues of one statement. */
const ROWS = 500;
const MINUTE_MS = 60_000;
const THIS_MINUTE = `${NOW_MS} DIV ${MINUTE_MS}`;
const WINDOWS = [1, 5, 60] as const;
/** The events that make up each rate. */
const KINDS: Record<'in' | 'out' | 'failed' | 'expired', readonly MinuteEvent[]> = {
  in: ['enqueued'],
  out: ['acked'],
  failed: ['nacked', 'deadLettered'],
  expired: ['expired'],
};
/** Minutes that the overview draws as one. */
const STRETCH = 5;
const STRETCHES = 12;
/** The minutes that the longest window touches: it begins within the first of them. */
const RATE_MINUTES = 61;

/** A minute of a queue's history. */
export type HistoryMinute = Omit<HistoryAnswer['minutes'][number], 'at'> & { at: number };

/** The last hour of a queue. */
export interface QueueHour {
  /** Oldest first. */
  readonly stretches: readonly { in: number; out: number; failed: number }[];
  failed: number;
  expired: number;
  dequeued: number;
  /** The end of the last minute in which a consumer got a message, in ms since 1970. */
  lastDequeueAt: number | null;
  /** Over the last minute. */
  inPerSecond: number;
  outPerSecond: number;
}

type StretchRow = { queueId: number; stretch: number | string; lastDequeue: number | null } & Record<
  'enqueued' | 'acked' | 'nacked' | 'deadLettered' | 'expired' | 'dequeued' | 'enqueuedNow' | 'ackedNow',
  string | number
>;

/**
 * The last day of every queue, minute by minute, on the database's clock. Every broker and every
 * reaper adds what it has counted, so a row is the sum of all. Counts are for people: a process
 * that dies takes its last seconds with it, and a COMMIT whose answer is lost may count twice.
 *
 * Each write is one statement that locks rows of this table only, in the order of the primary key.
 */
export class MinuteRepository {
  constructor(private readonly database: Database) {}

  /** Adds events, by queue id, to the minute of now. */
  async add(counts: ReadonlyMap<number, EventCounts>): Promise<void> {
    await this.upsert(
      COLUMNS,
      [...counts].map(([id, events]) => [id, ...EVENTS.map((event) => events[event] ?? 0)]),
      (column) => `${column} = ${column} + VALUES(${column})`,
    );
  }

  /** Notes the depths of queues, by id, in the minute of now. */
  async addDepths(depths: ReadonlyMap<number, DeliveryStats>): Promise<void> {
    const rows = [...depths].map(([id, { ready, delayed, leased, waiting, oldestReadyAgeSeconds }]) => [
      id,
      ready,
      delayed,
      leased,
      waiting,
      oldestReadyAgeSeconds === null ? 0 : Math.round(oldestReadyAgeSeconds),
    ]);
    await this.upsert(DEPTHS, rows, (column) => `${column} = VALUES(${column})`);
  }

  /** Messages a second of one queue, or of every queue that had any in the last hour, by id. */
  async rates(queueId?: number): Promise<Map<number, QueueRates>> {
    const [now, touched] = await this.lastMinutes(RATE_MINUTES);
    const query = this.database.manager.createQueryBuilder(QueueMinuteEntity, 'one').select('one.queueId', 'queueId');
    for (const window of WINDOWS) {
      // The part of the minute that lies in the window.
      const share = `LEAST(1, GREATEST(0, CAST(one.minute AS SIGNED) + 1 - ${now / MINUTE_MS - window}))`;
      for (const [kind, events] of Object.entries(KINDS))
        query.addSelect(`SUM((${events.map((event) => `one.${event}`).join(' + ')}) * ${share})`, `${kind}${window}`);
    }
    const rows = await query
      .where(within(touched, queueId))
      .groupBy('one.queueId')
      .getRawMany<{ queueId: number } & Record<string, string | number>>();
    const perSecond = (sum: string | number | undefined, window: number): number =>
      Math.round((Number(sum) / (window * 60)) * 1000) / 1000;
    return new Map(
      rows.map((row) => [
        row.queueId,
        WINDOWS.map((minutes) => ({
          minutes,
          in: perSecond(row[`in${minutes}`], minutes),
          out: perSecond(row[`out${minutes}`], minutes),
          failed: perSecond(row[`failed${minutes}`], minutes),
          expired: perSecond(row[`expired${minutes}`], minutes),
        })),
      ]),
    );
  }

  /** The last minutes of a queue in which something happened or was counted, oldest first. */
  async history(queueId: number, count: number): Promise<HistoryMinute[]> {
    const [, minutes] = await this.lastMinutes(count);
    const rows = await this.database.manager.find(QueueMinuteEntity, {
      where: within(minutes, queueId),
      order: { minute: 'ASC' },
    });
    return rows.map(({ minute, queueId: _, oldestReadySeconds, ...counts }) => ({
      at: minute * MINUTE_MS,
      ...counts,
      oldestReadyAgeSeconds: oldestReadySeconds,
    }));
  }

  /**
   * Messages that came, went or changed in a queue within this time, as far as they were reported.
   * A minute counts as a whole, and so does the one before, whose last reports may have come late.
   */
  async changes(queueId: number, ageMs: number): Promise<number> {
    const [, minutes] = await this.lastMinutes(Math.ceil(ageMs / MINUTE_MS) + 1);
    const rows = await this.database.manager.find(QueueMinuteEntity, { where: within(minutes, queueId) });
    return rows.reduce((sum, row) => sum + EVENTS.reduce((all, event) => all + row[event], 0), 0);
  }

  /** The events of each queue in the last hour, by id. */
  async lastHour(): Promise<Map<number, Required<EventCounts>>> {
    const [, minutes] = await this.lastMinutes(60);
    const query = this.database.manager.createQueryBuilder(QueueMinuteEntity, 'one').select('one.queueId', 'queueId');
    for (const event of EVENTS) query.addSelect(`SUM(one.${event})`, event);
    const rows = await query
      .where('one.minute >= :first', { first: minutes[0] })
      .groupBy('one.queueId')
      .getRawMany<{ queueId: number } & Record<MinuteEvent, string>>();
    return new Map(
      rows.map(({ queueId, ...sums }) => [
        queueId,
        Object.fromEntries(EVENTS.map((event) => [event, Number(sums[event])])) as Required<EventCounts>,
      ]),
    );
  }

  /**
   * The last hour of every queue, by id, in stretches of five minutes of the clock, and what came
   * and went in the last minute.
   */
  async stretches(): Promise<{ now: number; queues: Map<number, QueueHour> }> {
    const [now, minutes] = await this.lastMinutes(60);
    const first = Math.ceil((minutes[0] as number) / STRETCH) * STRETCH;
    // The part of the minute before this one that lies within the last 60 seconds.
    const share = 1 - (now % MINUTE_MS) / MINUTE_MS;
    const recently = (column: string): string =>
      `SUM(${column} * (CASE minute WHEN ${THIS_MINUTE} THEN 1 WHEN ${THIS_MINUTE} - 1 THEN ${share} ELSE 0 END))`;
    const rows = await this.database.read<StretchRow>(
      `SELECT queue_id AS queueId, (minute - ?) DIV ${STRETCH} AS stretch,
              SUM(enqueued) AS enqueued, SUM(acked) AS acked, SUM(nacked) AS nacked,
              SUM(dead_lettered) AS deadLettered, SUM(expired) AS expired, SUM(dequeued) AS dequeued,
              MAX(IF(dequeued > 0, minute, NULL)) AS lastDequeue,
              ${recently('enqueued')} AS enqueuedNow, ${recently('acked')} AS ackedNow
       FROM queue_minute FORCE INDEX (PRIMARY)
       WHERE minute >= ?
       GROUP BY queue_id, stretch`,
      [first, first],
    );
    const queues = new Map<number, QueueHour>();
    for (const row of rows) {
      const hour = queues.get(row.queueId) ?? newHour();
      queues.set(row.queueId, hour);
      const failed = Number(row.nacked) + Number(row.deadLettered);
      const stretch = hour.stretches[Number(row.stretch)];
      if (stretch !== undefined) Object.assign(stretch, { in: Number(row.enqueued), out: Number(row.acked), failed });
      hour.failed += failed;
      hour.expired += Number(row.expired);
      hour.dequeued += Number(row.dequeued);
      hour.inPerSecond += Number(row.enqueuedNow) / 60;
      hour.outPerSecond += Number(row.ackedNow) / 60;
      if (row.lastDequeue !== null)
        hour.lastDequeueAt = Math.max(hour.lastDequeueAt ?? 0, (row.lastDequeue + 1) * MINUTE_MS);
    }
    return { now, queues };
  }

  /** Deletes minutes that are older than this many, at most `rows` rows. Returns how many. */
  async removeOlder(keptMinutes: number, rows: number): Promise<number> {
    // TypeORM's DELETE has no LIMIT.
    const { affectedRows } = await this.database.write(
      `DELETE FROM queue_minute WHERE minute < ${THIS_MINUTE} - ? ORDER BY minute, queue_id LIMIT ?`,
      [keptMinutes, rows],
    );
    return affectedRows;
  }

  /** The time now, and so many minutes up to now, oldest first. */
  private async lastMinutes(count: number): Promise<[number, number[]]> {
    const [row] = await this.database.read<{ now: number }>(`SELECT ${NOW_MS} AS now`);
    const now = (row as { now: number }).now;
    const last = Math.floor(now / MINUTE_MS);
    return [now, Array.from({ length: count }, (_, index) => last - count + 1 + index)];
  }

  /** Inserts rows of `(queue id, …columns)` in the minute of now, or changes those that exist. */
  private async upsert(
    columns: readonly string[],
    rows: readonly number[][],
    change: (column: string) => string,
  ): Promise<void> {
    const sorted = rows.toSorted(([one = 0], [other = 0]) => one - other);
    for (let from = 0; from < sorted.length; from += ROWS) {
      const values = sorted.slice(from, from + ROWS).map((row) => `(${THIS_MINUTE},${row.join(',')})`);
      await this.database.write(
        `INSERT INTO queue_minute (minute, queue_id, ${columns.join(', ')}) VALUES ${values.join(',')}
     ON DUPLICATE KEY UPDATE ${columns.map(change).join(', ')}`,
      );
    }
  }
}

/** Rows of one queue by key, or those of all queues as a range. */
function within(minutes: number[], queueId: number | undefined): FindOptionsWhere<QueueMinuteEntity> {
  if (queueId === undefined) return { minute: Between(minutes[0] as number, minutes.at(-1) as number) };
  return { minute: In(minutes), queueId };
}

export function noRates(): QueueRates {
  return WINDOWS.map((minutes) => ({ minutes, in: 0, out: 0, failed: 0, expired: 0 }));
}

/** An hour in which nothing happened. */
export function newHour(): QueueHour {
  return {
    stretches: Array.from({ length: STRETCHES }, () => ({ in: 0, out: 0, failed: 0 })),
    failed: 0,
    expired: 0,
    dequeued: 0,
    lastDequeueAt: null,
    inPerSecond: 0,
    outPerSecond: 0,
  };
}
