import type { JobAnswer } from '@rowmq/contract';
import { CommandFailed, EXIT } from './exit-codes.js';
import { Progress } from './output/progress.js';
import { count } from './output/units.js';
import type { Session } from './session.js';

/** One look at a job waits so long for its end. The progress bar moves as often. */
const LOOK_SECONDS = 1;

const VERBS = { redrive: 'redriven', drop: 'dropped', purge: 'purged' } as const;

/** A job's outcome in one sentence. */
export function jobSentence({ kind, queue, toQueue, done, skipped, state, error, id }: JobAnswer): string {
  const where = toQueue === null ? '' : ` to ${toQueue}`;
  const left = skipped === 0 ? '' : `, ${count(skipped)} left in place`;
  const why = error === null ? '' : `: ${error}`;
  return `${queue}: ${count(done)} messages ${VERBS[kind]}${where}${left} (job ${id} ${state}${why}).`;
}

/**
 * Waits for a job's end with a progress bar, or only tells its id. Ctrl-C leaves the job alone: it
 * runs in the broker.
 */
export async function followJob(session: Session, started: JobAnswer, wait: boolean): Promise<void> {
  const { out, client } = session;
  if (!wait) {
    out.data(started, ({ id, kind }) => `The ${kind} runs as job ${id}. See: rowmq job show ${id}`);
    return;
  }
  const interrupted = session.onInterrupt();
  const progress = new Progress(out, started.kind, started.total);
  let job = started;
  try {
    while (job.state === 'running') {
      job = await client.getJob(job.id, { waitSeconds: LOOK_SECONDS }, { signal: interrupted });
      progress.show(job.examined, job.total);
    }
  } catch (error) {
    if (!interrupted.aborted) throw error;
    throw new CommandFailed(
      `The job goes on in the broker. See: rowmq job show ${job.id}; end it: rowmq job cancel ${job.id}`,
      EXIT.interrupted,
    );
  } finally {
    progress.end();
  }
  out.data(job, jobSentence);
  if (job.state !== 'done') throw new CommandFailed('');
}
