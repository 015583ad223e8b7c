import {
  dropRequest,
  type DropRequest,
  formatMessageId,
  type JobAnswer,
  jobId,
  type JobsAnswer,
  jobsQuery,
  type JobsQuery,
  newPackId,
  readRequest,
  redriveRequest,
  type RedriveRequest,
  RowmqError,
} from '@rowmq/contract';
import type { MemoryMessages } from './memory-messages.js';

/** The last jobs that can be asked for. */
const JOBS_KEPT = 100;

type Done = Partial<JobAnswer> & Pick<JobAnswer, 'kind' | 'queue' | 'total' | 'examined' | 'done' | 'skipped'>;

/** The jobs of an `InMemoryBroker`. Each is done when it is answered. */
export class MemoryJobs {
  readonly #jobs = new Map<string, JobAnswer>();

  constructor(private readonly messages: MemoryMessages) {}

  purge(queue: string): JobAnswer {
    this.messages.use(queue);
    const { purged, left } = this.messages.protocol.purge(queue);
    this.messages.forgetSettled();
    const total = purged + left;
    return this.#keep({ kind: 'purge', queue, total, examined: total, done: purged, skipped: left });
  }

  redrive(queue: string, request: RedriveRequest): JobAnswer {
    const { queues, protocol } = this.messages;
    this.messages.use(queue);
    const { filter, toQueue, messagesPerSecond, maxMessages = null } = readRequest(redriveRequest, request);
    if (toQueue !== undefined) this.messages.use(toQueue);
    const total = protocol.in(queue).length;
    let done = 0;
    const { skipped } = protocol.redrive(
      queue,
      (one) => {
        const isChosen =
          queues.has(toQueue ?? one.origin) &&
          (maxMessages === null || done < maxMessages) &&
          this.messages.matches(filter, one);
        if (isChosen) done += 1;
        return isChosen;
      },
      toQueue,
    );
    this.messages.wake();
    const counts = { total, examined: total, done, skipped };
    return this.#keep({
      kind: 'redrive',
      queue,
      toQueue: toQueue ?? null,
      filter,
      messagesPerSecond,
      maxMessages,
      ...counts,
    });
  }

  drop(queue: string, request: DropRequest): JobAnswer {
    const { protocol } = this.messages;
    this.messages.use(queue);
    const { filter, messagesPerSecond = null, maxMessages = null } = readRequest(dropRequest, request);
    const all = protocol.in(queue);
    const chosen = all.filter((one) => !protocol.isLeased(one) && this.messages.matches(filter, one));
    const dropped = maxMessages === null ? chosen : chosen.slice(0, maxMessages);
    for (const one of dropped) protocol.drop(one);
    this.messages.forgetSettled();
    const counts = { total: all.length, examined: all.length, done: dropped.length, skipped: 0 };
    return this.#keep({ kind: 'drop', queue, filter, messagesPerSecond, maxMessages, ...counts });
  }

  get(id: string): JobAnswer {
    const job = this.#jobs.get(readRequest(jobId, id).toLowerCase());
    if (job === undefined) throw new RowmqError('job-not-found', `Job ${id} does not exist.`);
    return job;
  }

  list(query: Partial<JobsQuery>): JobsAnswer {
    const { queue, state, limit, after } = readRequest(jobsQuery, query);
    const found = [...this.#jobs.values()]
      .toReversed()
      .filter(
        (job) =>
          (queue === undefined || job.queue === queue) &&
          (state === undefined || job.state === state) &&
          (after === undefined || job.id < after),
      );
    const jobs = found.slice(0, limit);
    return { jobs, nextAfter: found.length > limit ? (jobs.at(-1)?.id ?? null) : null };
  }

  #keep(job: Done): JobAnswer {
    const now = new Date(this.messages.protocol.now).toISOString();
    const [oldest] = this.#jobs.keys();
    if (this.#jobs.size >= JOBS_KEPT && oldest !== undefined) this.#jobs.delete(oldest);
    const done: JobAnswer = {
      id: formatMessageId(newPackId()),
      toQueue: null,
      filter: {},
      messagesPerSecond: null,
      maxMessages: null,
      state: 'done',
      error: null,
      worker: null,
      createdAt: now,
      updatedAt: now,
      finishedAt: now,
      ...job,
    };
    this.#jobs.set(done.id, done);
    return done;
  }
}
