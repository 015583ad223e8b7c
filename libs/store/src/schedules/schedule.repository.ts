import { nextTick, RowmqError, type ScheduleDefinition } from '@rowmq/contract';
import { isDeepStrictEqual } from 'node:util';
import { And, Equal, type FindOperator, IsNull, Like, MoreThan, Not } from 'typeorm';
import { NOW_MS, timeOf } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import { isDuplicateKey, TryAgain } from '../database/database-errors.js';
import { QueueEntity, ScheduleEntity, TopicEntity } from '../entities/index.js';
import { queueNotFound } from '../queues/queue.js';
import { topicNotFound } from '../topics/topic.js';

/** Schedules, as operators and services define and see them. `ticks.ts` enqueues their messages. */
export class ScheduleRepository {
  constructor(private readonly database: Database) {}

  /**
   * Creates a schedule, or replaces its definition. The next tick stays as it is unless the times
   * of the ticks change, so a repeat neither loses nor repeats a tick that is due.
   *
   * Throws `queue-not-found`, `topic-not-found`. The queue or the topic may be deleted later, and
   * then the ticks fail.
   *
   * Locks: the schedule's row. A reaper that enqueues its tick meanwhile is waited for.
   */
  async put(name: string, definition: ScheduleDefinition): Promise<{ schedule: ScheduleEntity; created: boolean }> {
    let insertedAt: number | undefined;
    const created = await this.database.transaction(async (tx) => {
      const [locked] = await tx.read<{ now: number }>(
        `SELECT ${NOW_MS} AS now FROM schedule FORCE INDEX (PRIMARY) WHERE name = ? FOR UPDATE`,
        [name],
      );
      const known = locked === undefined ? null : await tx.manager.findOneBy(ScheduleEntity, { name });
      // The COMMIT of an earlier attempt took effect, and its answer was lost.
      if (known !== null && known.createdAt === insertedAt) return true;
      await checkTarget(tx, definition);
      const changed = toColumns(definition);
      if (known !== null && isSame(known, changed, COLUMNS)) return false;
      const now = locked?.now ?? (await timeOf(tx));
      const keepsTick = known !== null && isSame(known, changed, TIMES);
      const nextAt = keepsTick ? known.nextAt : changed.enabled ? nextTick(changed, now) : null;
      const state = { ...changed, nextAt, dueAt: nextAt, lastFailure: null };
      if (known !== null) {
        await tx.manager.update(ScheduleEntity, { name }, state);
        return false;
      }
      await tx.manager.insert(ScheduleEntity, { ...state, name, createdAt: now }).catch((error: unknown) => {
        throw isDuplicateKey(error)
          ? new TryAgain(`schedule '${name}' was created meanwhile`, { cause: error })
          : error;
      });
      insertedAt = now;
      return true;
    });
    return { schedule: await this.get(name), created };
  }

  /** Throws `schedule-not-found`. */
  async get(name: string): Promise<ScheduleEntity> {
    const schedule = await this.database.manager.findOneBy(ScheduleEntity, { name });
    if (schedule === null) throw scheduleNotFound(name);
    return schedule;
  }

  /** Some of the enabled schedules whose due tick could not be enqueued. */
  async failed(limit: number): Promise<{ name: string; lastFailure: string }[]> {
    const found = await this.database.manager.find(ScheduleEntity, {
      where: { enabled: true, lastFailure: Not(IsNull()) },
      select: { name: true, lastFailure: true },
      order: { name: 'ASC' },
      take: limit,
    });
    return found.map(({ name, lastFailure }) => ({ name, lastFailure: lastFailure as string }));
  }

  /**
   * A page of schedules by name, and whether there are more.
   * @param patterns names, or beginnings of names and a `*`, as an API key has them; none: all
   */
  async list(
    after: string,
    limit: number,
    patterns: readonly string[] = [],
  ): Promise<{ schedules: ScheduleEntity[]; isLast: boolean }> {
    const names = patterns.length === 0 ? [MoreThan(after)] : patterns.map((one) => And(MoreThan(after), matches(one)));
    const found = await this.database.manager.find(ScheduleEntity, {
      where: names.map((name) => ({ name })),
      order: { name: 'ASC' },
      take: limit + 1,
    });
    return { schedules: found.slice(0, limit), isLast: found.length <= limit };
  }

  /**
   * Its messages stay. Throws `schedule-not-found`.
   *
   * Locks: the schedule's row.
   */
  async delete(name: string): Promise<void> {
    let foundAt: number | undefined;
    await this.database.transaction(async (tx) => {
      const [row] = await tx.read<{ createdAt: number }>(
        'SELECT created_at AS createdAt FROM schedule FORCE INDEX (PRIMARY) WHERE name = ? FOR UPDATE',
        [name],
      );
      // An earlier attempt deleted the schedule, and a new one may have its name.
      if (tx.commitUnknown && row?.createdAt !== foundAt) return;
      if (row === undefined) throw scheduleNotFound(name);
      foundAt = row.createdAt;
      await tx.finish([{ sql: 'DELETE FROM schedule WHERE name = ?', values: [name] }]);
    });
  }
}

type Columns = Pick<
  ScheduleEntity,
  'cron' | 'everySeconds' | 'timeZone' | 'queue' | 'topic' | 'message' | 'enabled' | 'missed'
>;

const TIMES = ['cron', 'everySeconds', 'timeZone', 'enabled'] as const;
const COLUMNS = [...TIMES, 'queue', 'topic', 'message', 'missed'] as const;

async function checkTarget({ manager }: Transaction, { queue, topic }: ScheduleDefinition): Promise<void> {
  if (queue !== undefined && !(await manager.existsBy(QueueEntity, { name: queue }))) throw queueNotFound(queue);
  if (topic !== undefined && !(await manager.existsBy(TopicEntity, { name: topic }))) throw topicNotFound(topic);
}

function toColumns({ cron, everySeconds, timeZone, queue, topic, message, ...rest }: ScheduleDefinition): Columns {
  return {
    ...rest,
    queue: queue ?? null,
    topic: topic ?? null,
    cron: cron ?? null,
    everySeconds: everySeconds ?? null,
    timeZone: cron === undefined ? null : (timeZone ?? 'UTC'),
    message: JSON.stringify(message),
  };
}

function isSame(one: Columns, other: Columns, names: readonly (keyof Columns)[]): boolean {
  return names.every((name) => isDeepStrictEqual(one[name], other[name]));
}

/** A name has no % and no backslash, but `_` is a wildcard of LIKE. */
function matches(pattern: string): FindOperator<string> {
  return pattern.endsWith('*') ? Like(`${pattern.slice(0, -1).replaceAll('_', '\\_')}%`) : Equal(pattern);
}

function scheduleNotFound(name: string): RowmqError {
  return new RowmqError(
    'schedule-not-found',
    `Schedule '${name}' does not exist; create it with PUT /v1/admin/schedules/${name}.`,
  );
}
