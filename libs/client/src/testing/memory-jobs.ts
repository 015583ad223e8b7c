import {
  checkTarget,
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
import { JobProtocol } from './job-protocol.js';
import type { Delivery } from './lease-protocol.js';
import type { MemoryMessages } from './memory-messages.js';

/** The last jobs that can be asked for. */
const JOBS_KEPT = 100;

type Work = Pick<JobAnswer, 'kind' | 'queue' | 'toQueue' | 'filter' | 'messagesPerSecond' | 'maxMessages'>;
type Counts = Pick<JobAnswer, 'total' | 'examined' | 'done' | 'skipped'>;
/** An operator's wish. A purge has no more than its queue. */
type Wish = Pick<Work, 'kind' | 'queue'> & {
  [Name in keyof Work]?: Work[Name] | undefined;
};

/** The jobs of an `InMemoryBroker`. Each is done when it is answered. */
export class MemoryJobs {
  readonly #jobs = new Map<string, JobAnswer>();

  constructor(private readonly messages: MemoryMessages) {}

  purge(queue: string): JobAnswer {
    return this.#run({ kind: 'purge', queue });
  }

  redrive(queue: string, request: RedriveRequest): JobAnswer {
    const { ordering } = this.messages.use(queue);
    const { toQueue, ...given } = readRequest(redriveRequest, request);
    if (toQueue !== undefined)
      checkTarget({ name: queue, ordering }, { name: toQueue, ordering: this.messages.use(toQueue).ordering });
    return this.#run({ kind: 'redrive', queue, toQueue: toQueue ?? null, ...given });
  }

  drop(queue: string, request: DropRequest): JobAnswer {
    return this.#run({ kind: 'drop', queue, ...readRequest(dropRequest, request) });
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

  #run({ kind, queue, toQueue = null, filter = {}, messagesPerSecond = null, maxMessages = null }: Wish): JobAnswer {
    this.messages.use(queue);
    const { protocol } = this.messages;
    const total = protocol.in(queue).length;
    const selects = (one: Delivery): boolean => this.messages.matches(filter, one);
    const counts = new JobProtocol(protocol).run({ kind, queue, target: toQueue, selects }, maxMessages ?? Infinity);
    this.messages.forgetSettled();
    this.messages.wake();
    return this.#keep({ kind, queue, toQueue, filter, messagesPerSecond, maxMessages, total, ...counts });
  }

  #keep(job: Work & Counts): JobAnswer {
    const now = new Date(this.messages.protocol.now).toISOString();
    const [oldest] = this.#jobs.keys();
    if (this.#jobs.size >= JOBS_KEPT && oldest !== undefined) this.#jobs.delete(oldest);
    const done: JobAnswer = {
      id: formatMessageId(newPackId()),
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
