import {
  type JobKind,
  type JobState,
  LIMITS,
  type MessageFilter,
  newPackId,
  reaches,
  RowmqError,
} from '@rowmq/contract';
import { type EntityManager, In, IsNull, LessThan, Raw } from 'typeorm';
import { NOW_MS } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import { hex } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import { JobEntity } from '../entities/index.js';
import type { Delivery } from '../messages/delivery.js';
import type { Members } from '../messages/members.js';
import { arrivedAt } from '../messages/moves.js';
import type { BatchCounts, BatchOfJob } from '../messages/batch-of-job.js';
import { select } from '../messages/select.js';
import { FIRST_ID, UnleasedRepository } from '../messages/unleased.repository.js';
import { type Queue, queueNotFound } from '../queues/queue.js';
import { TAKE_TURN } from '../queues/take-turn.js';
import { JOB_LEASE_MS, JobLost, jobNotFound, MOST_FAILURES, type Progress, progressAfter, roomOf } from './job.js';

/** A new job. */
export interface NewJob {
  kind: JobKind;
  queue: Pick<Queue, 'id' | 'name'>;
  target: Pick<Queue, 'id' | 'name'> | null;
  filter: MessageFilter;
  /** Names of the queues that the caller's key reaches, as patterns. None: all. */
  patterns: readonly string[];
  messagesPerSecond: number | null;
  maxMessages: number | null;
}

/** The result of one batch of a job. */
export interface JobBatch {
  /** The job after the batch. */
  job: JobEntity;
  /** Messages that the batch moved or settled. */
  count: number;
  /** Messages that it moved, by the queue to which they went. */
  moved: Map<number, number>;
  /** It ended a walk through the queue that left messages which others had locked. */
  isNewPass: boolean;
}

/** Deliveries of which a job's queue has at most so many are counted when the job begins. */
const COUNTED_ROWS = 100_000;
const ERROR_CHARS = 1000;

/**
 * Jobs. A broker process, the worker, carries one out in batches. Each batch locks the job's row
 * first and counts itself there in its own transaction. So a batch is counted once, and two workers
 * of one job never work at the same time.
 */
export class JobRepository {
  private readonly unleased: UnleasedRepository;

  constructor(private readonly database: Database) {
    this.unleased = new UnleasedRepository(database);
  }

  /**
   * Creates a job for the messages that are in the queue now. Throws `overloaded` while too many
   * jobs are open.
   *
   * Locks: the reaper's lease row, so that creators take turns and never pass the limit together;
   * the new row. A COMMIT without an answer is repeated with the same id.
   */
  async create({ kind, queue, target, filter, patterns, messagesPerSecond, maxMessages }: NewJob): Promise<JobEntity> {
    // Before the count of messages, which is long.
    await refuseIfTooMany(this.database.manager);
    const id = newPackId();
    const lastPackId = (await this.unleased.lastId(queue.id)) ?? FIRST_ID;
    const job = {
      id,
      kind,
      queueId: queue.id,
      queue: queue.name,
      targetQueueId: target?.id ?? null,
      targetQueue: target?.name ?? null,
      filter: JSON.stringify(filter),
      patterns: JSON.stringify(patterns),
      messagesPerSecond,
      maxMessages,
      total: await this.count(queue.id),
      examined: 0,
      done: 0,
      skipped: 0,
      state: 'running' as const,
      error: null,
      lastPackId,
      afterPackId: FIRST_ID,
      pass: 1,
      leftOver: 0,
      step: 0,
      failures: 0,
      worker: null,
      workerUntil: 0,
      createdAt: () => NOW_MS,
      updatedAt: () => NOW_MS,
      finishedAt: null,
    };
    await this.database.transaction(async (tx) => {
      await tx.read(TAKE_TURN);
      // The COMMIT of an earlier attempt took effect, and its answer was lost.
      if (await tx.manager.existsBy(JobEntity, { id })) return;
      await refuseIfTooMany(tx.manager);
      await tx.manager.insert(JobEntity, job);
    });
    return this.get(id);
  }

  /** The messages of a queue, or null if it has too many deliveries. */
  private async count(queueId: number): Promise<number | null> {
    const [row] = await this.database.read<{ deliveries: number; messages: string | number | null }>(
      `SELECT COUNT(*) AS deliveries, SUM(BIT_COUNT(members)) AS messages
       FROM (SELECT members FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? LIMIT ?) AS some`,
      [queueId, COUNTED_ROWS],
    );
    return row === undefined || row.deliveries >= COUNTED_ROWS ? null : Number(row.messages ?? 0);
  }

  /** Throws `job-not-found`. */
  async get(id: Buffer): Promise<JobEntity> {
    const job = await this.database.manager.findOneBy(JobEntity, { id });
    if (job === null) throw jobNotFound(id);
    return job;
  }

  /** A page of jobs, newest first, and whether there are more. */
  async list({
    queue,
    state,
    before,
    limit,
  }: {
    queue?: string | undefined;
    state?: JobState | undefined;
    before?: Buffer | undefined;
    limit: number;
  }): Promise<{ jobs: JobEntity[]; isLast: boolean }> {
    const found = await this.database.manager.find(JobEntity, {
      where: {
        ...(queue !== undefined && { queue }),
        ...(state !== undefined && { state }),
        ...(before !== undefined && { id: LessThan(before) }),
      },
      order: { id: 'DESC' },
      take: limit + 1,
    });
    return { jobs: found.slice(0, limit), isLast: found.length <= limit };
  }

  /**
   * Ends a job. Waits for its batch in flight, so after the answer nothing moves any more. A
   * finished job stays as it is. Throws `job-not-found`. Locks: the job's row.
   */
  async cancel(id: Buffer): Promise<JobEntity> {
    await this.finish({ id, state: 'running' }, 'cancelled');
    return this.get(id);
  }

  /** Ids of jobs that no worker has, oldest first. */
  async idle(limit: number): Promise<Buffer[]> {
    const jobs = await this.database.manager.find(JobEntity, {
      select: { id: true },
      where: { finishedAt: IsNull(), workerUntil: Raw((column) => `${column} <= ${NOW_MS}`) },
      order: { workerUntil: 'ASC' },
      take: limit,
    });
    return jobs.map(({ id }) => id);
  }

  /**
   * Makes this process the worker of a job that has none, or none that has committed a batch
   * lately. Returns false if another one was faster. It uses a conditional UPDATE, as the reaper's
   * lease does.
   *
   * Every change of a job locks its row before its entry in `job_by_end`. MariaDB would find the
   * row through that index, and deadlock with a batch.
   */
  async acquire(id: Buffer, worker: string): Promise<boolean> {
    const { affectedRows } = await this.database.write(
      `UPDATE job FORCE INDEX (PRIMARY)
       SET worker = ?, worker_until = ${NOW_MS} + ${JOB_LEASE_MS}
       WHERE id = ?
         AND finished_at IS NULL
         AND worker_until <= ${NOW_MS}`,
      [worker, id],
    );
    return affectedRows === 1;
  }

  /** Hands a job on, so that the next worker need not wait. */
  async release(id: Buffer, worker: string): Promise<void> {
    await this.database.manager.update(JobEntity, { id, worker, state: 'running' }, { worker: null, workerUntil: 0 });
  }

  /**
   * Notes that a batch failed. The job fails with the last of too many in a row, or at once if no
   * repeat can help. Otherwise the next worker tries again.
   */
  async failed(id: Buffer, worker: string, error: Error): Promise<void> {
    const text = error.message.slice(0, ERROR_CHARS);
    const job = await this.get(id);
    const isHopeless = error instanceof RowmqError && error.code === 'queue-not-found';
    if (isHopeless || job.failures + 1 >= MOST_FAILURES) {
      await this.finish({ id, worker, state: 'running' }, 'failed', text);
      return;
    }
    await this.database.manager.update(
      JobEntity,
      { id, worker, state: 'running' },
      { error: text, failures: job.failures + 1, worker: null, workerUntil: () => `${NOW_MS} + 1000` },
    );
  }

  /**
   * Carries out the next batch of a job: among the next `rows` deliveries, up to `most` messages.
   * Throws {@link JobLost} if the job has ended, or is another worker's.
   *
   * Locks: the job's row; then those of a redrive.
   */
  async runBatch(id: Buffer, worker: string, { rows, most }: { rows: number; most: number }): Promise<JobBatch> {
    const job = await this.get(id);
    if (job.state !== 'running' || job.worker !== worker) throw new JobLost();
    const [queue] = await this.database.read('SELECT 1 FROM queue WHERE id = ? AND name IS NOT NULL', [job.queueId]);
    if (queue === undefined) throw queueNotFound(job.queue);
    const batch = new Batch(this.database, job);
    const moved = await this.handle(job, rows, Math.min(most, roomOf(job)), batch);
    const after = batch.job;
    return { job: after, count: after.done - job.done, moved, isNewPass: after.pass > job.pass };
  }

  /** Returns the number of moved messages, by the queue to which they went. */
  private async handle(
    { kind, queueId, afterPackId, lastPackId }: JobEntity,
    rows: number,
    most: number,
    batch: Batch,
  ): Promise<Map<number, number>> {
    if (kind === 'redrive') return (await this.unleased.redrive(queueId, afterPackId, rows, most, batch)).moved;
    if (kind === 'drop') await this.unleased.drop(queueId, afterPackId, rows, most, batch);
    else await this.unleased.purge(queueId, afterPackId, lastPackId, rows, batch);
    return new Map();
  }

  /** Deletes up to `rows` jobs that ended more than this many seconds ago. Returns how many. */
  async forget(retentionSeconds: number, rows: number): Promise<number> {
    const old = await this.database.manager.find(JobEntity, {
      select: { id: true },
      where: { finishedAt: Raw((column) => `${column} <= ${NOW_MS} - ${Math.round(retentionSeconds * 1000)}`) },
      take: rows,
    });
    if (old.length === 0) return 0;
    const { affected } = await this.database.manager.delete(JobEntity, { id: In(old.map(({ id }) => id)) });
    return affected ?? 0;
  }

  private async finish(
    where: Partial<Pick<JobEntity, 'id' | 'worker' | 'state'>>,
    state: JobState,
    error?: string,
  ): Promise<void> {
    await this.database.manager.update(JobEntity, where, {
      state,
      ...(error !== undefined && { error }),
      worker: null,
      finishedAt: () => NOW_MS,
    });
  }
}

async function refuseIfTooMany(manager: EntityManager): Promise<void> {
  const open = await manager.countBy(JobEntity, { finishedAt: IsNull() });
  if (open < LIMITS.openJobs) return;
  throw new RowmqError(
    'overloaded',
    `${open} jobs are not finished, as many as may be at a time. Wait until one ends, or cancel one: GET /v1/admin/jobs?state=running lists them.`,
    { retryAfterSeconds: 10 },
  );
}

/** A batch as a part of its job. */
class Batch implements BatchOfJob {
  readonly upTo: Buffer;
  readonly targetId: number | null;
  private progress: Progress;

  /** @param job as it was before the batch, and then as the batch leaves it */
  constructor(
    private readonly database: Database,
    public job: JobEntity,
  ) {
    this.upTo = job.lastPackId;
    this.targetId = job.targetQueueId;
    this.progress = job;
  }

  reaches(queue: string): boolean {
    return reaches(JSON.parse(this.job.patterns) as string[], queue);
  }

  /** Also leaves out what came here after the job began: it may be what the job has moved away. */
  async choose<Row extends Delivery>(found: readonly Row[]): Promise<Map<Row, Members>> {
    const filter = JSON.parse(this.job.filter) as MessageFilter;
    return select(
      this.database,
      filter,
      found.filter((row) => arrivedAt(row) <= this.job.createdAt),
    );
  }

  async begin(tx: Transaction): Promise<boolean> {
    const { id, step, worker } = this.job;
    const [now] = await tx.read<Pick<JobEntity, 'step' | 'worker' | 'state'>>(
      'SELECT step, worker, state FROM job FORCE INDEX (PRIMARY) WHERE id = ? FOR UPDATE',
      [id],
    );
    if (tx.commitUnknown && now?.step === step + 1) return false;
    if (now?.step !== step || now.worker !== worker || now.state !== 'running') throw new JobLost();
    return true;
  }

  end(counts: BatchCounts): Statement[] {
    this.progress = progressAfter(this.job, counts);
    const { examined, done, skipped, afterPackId, pass, leftOver, state } = this.progress;
    const isOver = state === 'done';
    return [
      {
        sql: `UPDATE job
       SET examined = ${examined}, done = ${done}, skipped = ${skipped}, after_pack_id = ${hex(afterPackId)},
           pass = ${pass}, left_over = ${leftOver}, step = step + 1, failures = 0, error = NULL, state = '${state}',
           worker = ${isOver ? 'NULL' : 'worker'}, worker_until = ${NOW_MS} + ${JOB_LEASE_MS},
           updated_at = ${NOW_MS}, finished_at = ${isOver ? NOW_MS : 'NULL'}
       WHERE id = ${hex(this.job.id)}`,
      },
    ];
  }

  committed(): void {
    this.job = Object.assign(new JobEntity(), this.job, this.progress, { step: this.job.step + 1 });
  }
}
