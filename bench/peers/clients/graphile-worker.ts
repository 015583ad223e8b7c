import { EventEmitter } from 'node:events';
import type { PeerQueue, PeerClient, Plan, Sink } from '../client.js';
import { serve } from '../serve.js';
import { peerPackage } from './peer-package.js';
import { openPool, type PgPool, queryCount } from './postgres.js';

interface Payload {
  body: string;
}

/**
 * The part of Graphile Worker that the benchmark uses: https://worker.graphile.org/docs/library/run
 * and https://worker.graphile.org/docs/library/add-job
 */
interface GraphileWorker {
  Logger: new (factory: () => () => void) => object;
  run(options: {
    connectionString: string;
    preset: { worker: WorkerSettings };
    taskList: Record<string, (payload: Payload) => void>;
    events: EventEmitter;
    logger: object;
    noHandleSignals: boolean;
  }): Promise<{ stop(): Promise<void> }>;
  makeWorkerUtils(options: { connectionString: string; maxPoolSize: number; logger: object }): Promise<WorkerUtils>;
}

interface WorkerSettings {
  concurrentJobs: number;
  maxPoolSize: number;
  localQueue?: { size: number };
  completeJobBatchDelay?: number;
  failJobBatchDelay?: number;
}

interface WorkerUtils {
  migrate(): Promise<void>;
  addJob(identifier: string, payload: Payload): Promise<unknown>;
  addJobs(jobs: { identifier: string; payload: Payload }[]): Promise<unknown>;
  release(): Promise<void>;
}

/**
 * In batches, it has the settings of its own performance figures
 * (https://worker.graphile.org/docs/performance): 24 concurrent jobs, a local queue, completions in
 * batches. One at a time and steady, it has neither, since a local queue is a batch and costs
 * latency.
 */
class GraphileWorkerClient implements PeerClient {
  private readonly library = peerPackage('graphile-worker') as GraphileWorker;
  /** By default it writes a line about every job. */
  private readonly logger = new this.library.Logger(() => () => undefined);
  private address!: string;
  private localQueueSize!: number;
  private checks!: PgPool;
  private utils!: WorkerUtils;

  async connect(address: string, options: { poolSize: number; localQueue: number }): Promise<void> {
    this.address = address;
    this.localQueueSize = options.localQueue;
    this.utils = await this.library.makeWorkerUtils({
      connectionString: address,
      maxPoolSize: options.poolSize,
      logger: this.logger,
    });
    this.checks = openPool(address, 1);
    await this.utils.migrate();
  }

  async openQueue(plan: Plan): Promise<PeerQueue> {
    const { checks, utils } = this;
    const identifier = plan.queue;
    let runner: { stop(): Promise<void> } | undefined;
    return {
      enqueue: async (bodies) => {
        const [only] = bodies;
        if (plan.kind === 'batch') await utils.addJobs(bodies.map((body) => ({ identifier, payload: { body } })));
        else if (only !== undefined) await utils.addJob(identifier, { body: only });
      },
      consume: async (sink) => {
        runner = await this.library.run({
          connectionString: this.address,
          preset: { worker: this.settings(plan) },
          taskList: { [identifier]: ({ body }) => sink.received(body) },
          events: reportCompletions(sink),
          logger: this.logger,
          noHandleSignals: true,
        });
      },
      remaining: async () => queryCount(checks, 'SELECT count(*) FROM graphile_worker.jobs'),
      close: async () => runner?.stop(),
    };
  }

  private settings(plan: Plan): WorkerSettings {
    const settings = { concurrentJobs: plan.consumers, maxPoolSize: plan.consumers + 1 };
    if (plan.kind !== 'batch') return settings;
    return { ...settings, localQueue: { size: this.localQueueSize }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
  }

  async analyse(): Promise<void> {
    await this.checks.query('ANALYZE');
  }

  async close(): Promise<void> {
    await this.utils.release();
    await this.checks.end();
  }
}

/**
 * It reports a job as complete when its deletion is on the way, not when it has committed.
 * Therefore the stretch ends only when the table is empty.
 */
function reportCompletions(sink: Sink): EventEmitter {
  const events = new EventEmitter();
  events.on('job:complete', ({ error }: { error: unknown }) =>
    error === null || error === undefined ? sink.completed(1) : sink.failed(error),
  );
  events.on('pool:fatalError', ({ error }: { error: unknown }) => sink.failed(error));
  return events;
}

/** Entry of the client's process. */
export function main(): void {
  serve(new GraphileWorkerClient());
}
