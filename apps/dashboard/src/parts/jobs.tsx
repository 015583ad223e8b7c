import type { JSX } from 'preact';
import type { JobAnswer, JobsAnswer } from '@rowmq/contract';
import { admin, change, may } from '../api.js';
import { ago, number, plural } from '../format.js';
import { useLive } from '../live.js';
import { to } from '../router.js';
import { messageOf } from './dialog.js';
import { Loaded } from './states.js';
import { toast } from './toasts.js';

const EVERY_MS = 1500;
const ROWS = 50;
const VERBS = { redrive: 'Redrive', drop: 'Drop', purge: 'Purge' } as const;

/** Jobs and how far they are, of one queue or of all. */
export function JobList({ queue, state }: { queue?: string; state?: JobAnswer['state'] }): JSX.Element {
  const live = useLive<JobsAnswer>(admin(['jobs'], { queue, state, limit: ROWS }), EVERY_MS);
  return (
    <Loaded live={live}>
      {({ jobs }) =>
        jobs.length === 0 ? (
          <p class="muted">
            {state === undefined ? 'No jobs. A redrive, a drop or a purge of a queue begins one.' : 'No job runs.'}
          </p>
        ) : (
          <ul class="jobs">
            {jobs.map((job) => (
              <Job key={job.id} job={job} showsQueue={queue === undefined} />
            ))}
          </ul>
        )
      }
    </Loaded>
  );
}

function Job({ job, showsQueue }: { job: JobAnswer; showsQueue: boolean }): JSX.Element {
  const { kind, state, toQueue, filter, total, examined, done, skipped, error } = job;
  const conditions = Object.entries(filter).map(([name, value]) => `${name} ${value}`);
  return (
    <li class="card">
      <p class="job-title">
        <strong>
          {VERBS[kind]} {showsQueue && <a href={to(['queues', job.queue])}>{job.queue}</a>}
        </strong>
        {kind === 'redrive' && <> to {toQueue ?? 'where each message came from'}</>}
        {conditions.length > 0 && <> where {conditions.join(' and ')}</>}{' '}
        <span class={`badge ${state === 'failed' ? 'bad' : state === 'done' ? 'good' : ''}`}>{state}</span>
      </p>
      {state === 'running' && (
        <progress
          aria-label={`Progress of the ${kind}`}
          {...(total === null || total === 0 ? {} : { max: total, value: Math.min(examined, total) })}
        />
      )}
      <p class="muted">
        {plural(done, 'message')} done, {number(examined)} examined{total !== null && ` of ${number(total)}`}
        {skipped > 0 && `, ${number(skipped)} left where they are`} · began {ago(job.createdAt)}
        {job.finishedAt !== null && `, ended ${ago(job.finishedAt)}`}
      </p>
      {error !== null && <p class="fault">{error}</p>}
      {state === 'running' && may('admin') && (
        <button
          type="button"
          class="small"
          onClick={() => {
            change('DELETE', admin(['jobs', job.id])).then(
              () => toast('The job was cancelled.'),
              (failure: Error) => toast(messageOf(failure)),
            );
          }}
        >
          Cancel the job
        </button>
      )}
    </li>
  );
}
