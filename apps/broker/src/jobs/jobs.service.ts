import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import {
  checkTarget,
  type dropRequest,
  formatMessageId,
  type JobAnswer,
  type JobsAnswer,
  type JobsQuery,
  type MessageFilter,
  parseMessageId,
  type redriveRequest,
} from '@rowmq/contract';
import { type JobEntity, JobRepository, type NewJob, QueueRepository } from '@rowmq/store';
import type { z } from 'zod';
import type { Caller } from '../http/caller.js';
import { formatTime } from '../messages/message.codec.js';
import { JobRunner } from './job-runner.js';

/** A call that waits for the end of a job looks at it this often. */
const LOOK_MS = 100;

/** Creates jobs, shows them, and cancels them. */
@Injectable()
export class JobsService {
  constructor(
    private readonly jobs: JobRepository,
    private readonly queues: QueueRepository,
    private readonly runner: JobRunner,
  ) {}

  /**
   * Begins to move messages of a queue back to the queues that they left first, or to another one.
   * Only moves them to queues that the caller reaches. Throws `queue-not-found`, and
   * `invalid-request` if the target cannot hold the messages.
   */
  async redrive(caller: Caller, name: string, request: z.output<typeof redriveRequest>): Promise<JobAnswer> {
    if (request.toQueue !== undefined) caller.mustReach(request.toQueue);
    const queue = await this.queues.getFresh(name);
    await this.checkFilter(request.filter);
    const target = request.toQueue === undefined ? null : await this.queues.getFresh(request.toQueue);
    if (target !== null) checkTarget(queue, target);
    return this.begin({ kind: 'redrive', queue, target, patterns: caller.patterns, ...request });
  }

  /** Begins to settle messages that no consumer holds. Throws `queue-not-found`. */
  async drop(name: string, request: z.output<typeof dropRequest>): Promise<JobAnswer> {
    const queue = await this.queues.getFresh(name);
    await this.checkFilter(request.filter);
    return this.begin({ kind: 'drop', queue, ...request });
  }

  /**
   * Begins to settle every message that is in a queue now, leased ones included. Throws
   * `queue-not-found`.
   */
  async purge(name: string): Promise<JobAnswer> {
    return this.begin({ kind: 'purge', queue: await this.queues.getFresh(name) });
  }

  /** Throws `job-not-found`. */
  async get(caller: Caller, id: string, waitSeconds: number): Promise<JobAnswer> {
    const until = performance.now() + waitSeconds * 1000;
    for (;;) {
      const job = await this.jobs.get(parseMessageId(id));
      caller.mustReach(job.queue);
      if (job.finishedAt !== null || performance.now() >= until) return toAnswer(job);
      await sleep(LOOK_MS);
    }
  }

  /** A page of the jobs on queues that the caller reaches. It may be shorter than the limit. */
  async list(caller: Caller, { queue, state, limit, after }: JobsQuery): Promise<JobsAnswer> {
    const before = after === undefined ? undefined : parseMessageId(after);
    const { jobs, isLast } = await this.jobs.list({ queue, state, limit, before });
    const last = jobs.at(-1);
    const reached = jobs.filter((job) => caller.reaches(job.queue));
    return { jobs: reached.map(toAnswer), nextAfter: isLast || last === undefined ? null : formatMessageId(last.id) };
  }

  /** Throws `job-not-found`. */
  async cancel(caller: Caller, id: string): Promise<JobAnswer> {
    caller.mustReach((await this.jobs.get(parseMessageId(id))).queue);
    return toAnswer(await this.jobs.cancel(parseMessageId(id)));
  }

  private async begin({
    kind,
    queue,
    target = null,
    filter = {},
    patterns = [],
    messagesPerSecond = null,
    maxMessages = null,
  }: Pick<NewJob, 'kind' | 'queue'> & Partial<NewJob>): Promise<JobAnswer> {
    const job = await this.jobs.create({ kind, queue, target, filter, patterns, messagesPerSecond, maxMessages });
    this.runner.look();
    return toAnswer(job);
  }

  /** A filter that names no queue would select nothing, and look like success. */
  private async checkFilter({ source }: MessageFilter): Promise<void> {
    if (source !== undefined) await this.queues.getFresh(source);
  }
}

function toAnswer(job: JobEntity): JobAnswer {
  return {
    id: formatMessageId(job.id),
    kind: job.kind,
    queue: job.queue,
    toQueue: job.targetQueue,
    filter: JSON.parse(job.filter) as MessageFilter,
    messagesPerSecond: job.messagesPerSecond,
    maxMessages: job.maxMessages,
    state: job.state,
    total: job.total,
    examined: job.examined,
    done: job.done,
    skipped: job.skipped,
    error: job.error,
    worker: job.worker,
    createdAt: formatTime(job.createdAt),
    updatedAt: formatTime(job.updatedAt),
    finishedAt: job.finishedAt === null ? null : formatTime(job.finishedAt),
  };
}
