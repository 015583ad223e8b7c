import { formatMessageId, RowmqError } from '@rowmq/contract';
import { FIRST_ID } from '../messages/unleased.repository.js';
import type { BatchCounts } from '../messages/batch-of-job.js';
import type { JobEntity } from '../entities/index.js';

/** Another process may take over a job whose worker has committed nothing for so long. */
export const JOB_LEASE_MS = 15_000;
/**
 * Others may have locked deliveries when a job passes them. It walks through its queue up to this
 * many times, until it leaves none.
 */
const MOST_PASSES = 10;
/** A job fails after so many failed batches in a row. */
export const MOST_FAILURES = 20;

/** The job was cancelled, or another process has taken it over. */
export class JobLost extends Error {
  override readonly name = 'JobLost';
}

export function jobNotFound(id: Buffer): RowmqError {
  return new RowmqError(
    'job-not-found',
    `Job ${formatMessageId(id)} does not exist: it was never created, or it ended days ago. GET /v1/admin/jobs lists all.`,
  );
}

/** The columns of a job that a batch changes. */
export type Progress = Pick<JobEntity, 'examined' | 'done' | 'skipped' | 'afterPackId' | 'pass' | 'leftOver' | 'state'>;

/** The progress of a job after one more batch. */
export function progressAfter(job: JobEntity, batch: BatchCounts): Progress {
  // Only the first walk examines; the others look for what it had to leave.
  const isFirstPass = job.pass === 1;
  const done = job.done + batch.done;
  const leftOver = job.leftOver + batch.left;
  const isEnough = job.maxMessages !== null && done >= job.maxMessages;
  const isEnd = batch.next === null;
  const isOver = isEnough || (isEnd && (leftOver === 0 || job.pass >= MOST_PASSES));
  return {
    examined: job.examined + (isFirstPass ? batch.examined : 0),
    done,
    skipped: job.skipped + (isFirstPass ? batch.skipped : 0) + (isOver && !isEnough ? leftOver : 0),
    afterPackId: batch.next ?? FIRST_ID,
    pass: isEnd && !isOver ? job.pass + 1 : job.pass,
    leftOver: isEnd ? 0 : leftOver,
    state: isOver ? 'done' : 'running',
  };
}

/** The most messages that the next batch may handle. */
export function roomOf({ maxMessages, done }: JobEntity): number {
  return maxMessages === null ? Infinity : Math.max(0, maxMessages - done);
}
