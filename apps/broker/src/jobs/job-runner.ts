import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BeforeApplicationShutdown, Injectable, Logger, type OnApplicationBootstrap } from '@nestjs/common';
import { formatMessageId } from '@rowmq/contract';
import { type JobBatch, JobLost, JobRepository, QueueRepository } from '@rowmq/store';
import { WaitingConsumers } from '../messages/waiting-consumers.js';
import { Metrics } from '../metrics/metrics.js';
import { Pace } from './pace.js';

/** Jobs that this process carries out at a time. The others wait for it or for another process. */
const JOBS_AT_ONCE = 4;
/** A process looks for jobs that another one has left this often, more or less. */
const LOOK_MS = 5000;
/** The event of messages that a job of this kind handles. */
const EVENTS = { redrive: 'redriven', drop: 'dropped', purge: 'purged' } as const;
/** Deliveries that one transaction moves or removes. */
const BATCH_ROWS = 500;

/**
 * Carries out jobs. Every broker process does, and the database decides which one works on which
 * job. The reaper does not: a broker is there when an operator asks for a job, and can wake the
 * consumers who wait for the messages. A round of the reaper would also have to wait for a slow
 * job.
 *
 * A job survives the death of its worker: the progress is in the database, and another process
 * finds the job some seconds later.
 */
@Injectable()
export class JobRunner implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private readonly logger = new Logger(JobRunner.name);
  private readonly worker = `${hostname()}:${process.pid}:${randomBytes(3).toString('hex')}`.slice(0, 120);
  private readonly stop = new AbortController();
  private readonly running = new Map<string, Promise<void>>();
  private timer: NodeJS.Timeout | undefined;
  private looking: Promise<void> | undefined;
  /** A job that was created while a look was under way, or that ended, may have escaped it. */
  private mustLookAgain = false;

  constructor(
    private readonly jobs: JobRepository,
    private readonly queues: QueueRepository,
    private readonly consumers: WaitingConsumers,
    private readonly metrics: Metrics,
  ) {}

  onApplicationBootstrap(): void {
    this.look();
  }

  /** Waits for the batches in flight, and hands the jobs on. */
  async beforeApplicationShutdown(): Promise<void> {
    this.stop.abort();
    clearTimeout(this.timer);
    await this.looking;
    await Promise.all(this.running.values());
  }

  /** Looks for jobs now: one was created, or has ended. */
  look(): void {
    clearTimeout(this.timer);
    if (this.stop.signal.aborted) return;
    if (this.looking !== undefined) {
      this.mustLookAgain = true;
      return;
    }
    this.mustLookAgain = false;
    this.looking = this.startIdle()
      .catch((error: unknown) => this.logger.warn(`could not look for jobs: ${String(error)}`))
      .finally(() => {
        this.looking = undefined;
        if (this.mustLookAgain) this.look();
        else if (!this.stop.signal.aborted)
          this.timer = setTimeout(() => this.look(), LOOK_MS * (0.5 + Math.random())).unref();
      });
  }

  private async startIdle(): Promise<void> {
    for (const id of await this.jobs.idle(JOBS_AT_ONCE)) {
      if (this.running.size >= JOBS_AT_ONCE || this.stop.signal.aborted) return;
      const name = formatMessageId(id);
      // A slow batch of this process may have outlived its time.
      if (this.running.has(name) || !(await this.jobs.acquire(id, this.worker))) continue;
      const work = this.carryOut(id).finally(() => {
        this.running.delete(name);
        this.look();
      });
      this.running.set(name, work);
    }
  }

  /** Never rejects. */
  private async carryOut(id: Buffer): Promise<void> {
    const name = formatMessageId(id);
    try {
      const { messagesPerSecond } = await this.jobs.get(id);
      const pace = new Pace(messagesPerSecond);
      while (!this.stop.signal.aborted) {
        const before = performance.now();
        const batch = await this.jobs.runBatch(id, this.worker, { rows: BATCH_ROWS, most: pace.most });
        await this.report(batch);
        if (batch.job.state !== 'running') {
          this.logger.log(
            `job ${name}, a ${batch.job.kind} of queue '${batch.job.queue}', is done: ${batch.job.done} messages`,
          );
          return;
        }
        const pauseMs = pace.after(batch, performance.now() - before);
        await sleep(pauseMs, undefined, { signal: this.stop.signal }).catch(() => undefined);
      }
      await this.jobs.release(id, this.worker);
    } catch (error) {
      if (error instanceof JobLost) return;
      this.logger.warn(`a batch of job ${name} failed: ${String(error)}`);
      await this.jobs.failed(id, this.worker, error as Error).catch(() => undefined);
    }
  }

  /** Wakes consumers, and counts. */
  private async report({ job, moved, count }: JobBatch): Promise<void> {
    if (count === 0) return;
    this.metrics.count(EVENTS[job.kind], job.queue, count);
    if (moved.size === 0) return;
    const names = await this.queues.names();
    for (const [queueId, messages] of moved) {
      const queue = names.get(queueId);
      if (queue !== undefined) this.consumers.wake(queue, messages);
    }
  }
}
