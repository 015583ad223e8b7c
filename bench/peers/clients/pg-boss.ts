import { setTimeout as sleep } from 'node:timers/promises';
import { type PeerQueue, type PeerClient, type Plan, PullConsumers, type Sink } from '../client.js';
import { serve } from '../serve.js';
import { peerPackage } from './peer-package.js';
import { openPool, type PgPool, queryCount } from './postgres.js';

interface Job {
  id: string;
  data: { body: string };
}

/**
 * The part of pg-boss that the benchmark uses: https://pgboss.io/api/jobs and
 * https://pgboss.io/api/workers
 */
interface PgBoss {
  on(event: 'error', listener: (error: Error) => void): void;
  start(): Promise<unknown>;
  stop(options: { graceful: boolean }): Promise<void>;
  createQueue(name: string, options: { notify: boolean }): Promise<void>;
  send(name: string, data: Job['data']): Promise<string | null>;
  insert(name: string, jobs: Pick<Job, 'data'>[]): Promise<string[] | null>;
  fetch(name: string, options: { batchSize: number }): Promise<Job[]>;
  complete(name: string, id: string | string[]): Promise<unknown>;
  work(
    name: string,
    options: { batchSize: number; localConcurrency: number },
    handler: (jobs: Job[]) => Promise<void>,
  ): Promise<string>;
  offWork(name: string, options: { wait: boolean }): Promise<void>;
}

interface PgBossOptions {
  connectionString: string;
  max: number;
  useListenNotify: boolean;
}

/** Pause after a fetch that found nothing. Workers would wait half a second at least. */
const EMPTY_PAUSE_MS = 2;

/**
 * In batches, it uses `insert`, and `fetch` and `complete` in loops, each with a whole batch.
 * Workers do the same, but they pause for half a second after every batch that is not full. Steady,
 * it uses workers that NOTIFY wakes, which its documentation offers for low latency
 * (https://pgboss.io/api/workers).
 */
class PgBossClient implements PeerClient {
  private boss!: PgBoss;
  private checks!: PgPool;

  async connect(address: string, options: { poolSize: number }): Promise<void> {
    const { PgBoss } = peerPackage('pg-boss') as { PgBoss: new (options: PgBossOptions) => PgBoss };
    this.boss = new PgBoss({ connectionString: address, max: options.poolSize, useListenNotify: true });
    this.boss.on('error', (error) => console.error(error));
    await this.boss.start();
    this.checks = openPool(address, 1);
  }

  async openQueue(plan: Plan): Promise<PeerQueue> {
    const { boss, checks } = this;
    const { queue } = plan;
    const steady = plan.kind === 'steady';
    await boss.createQueue(queue, { notify: steady });
    let consumers: PullConsumers | undefined;
    return {
      enqueue: async (bodies) => {
        const [only] = bodies;
        const jobs = bodies.map((body) => ({ data: { body } }));
        if (plan.kind === 'batch') await boss.insert(queue, jobs);
        else if (only !== undefined) await boss.send(queue, { body: only });
      },
      consume: async (sink) => {
        if (steady) await this.work(plan, sink);
        else consumers = new PullConsumers(plan.consumers, sink, async () => this.fetchAndComplete(plan, sink));
      },
      remaining: async () => {
        const sql = `SELECT count(*) FROM pgboss.job WHERE name = $1 AND state <> 'completed'`;
        return queryCount(checks, sql, [queue]);
      },
      close: async () => {
        if (steady) await boss.offWork(queue, { wait: true });
        await consumers?.stop();
      },
    };
  }

  /** It completes the jobs itself when the handler is done. */
  private async work(plan: Plan, sink: Sink): Promise<void> {
    await this.boss.work(plan.queue, { batchSize: plan.batch, localConcurrency: plan.consumers }, async (jobs) => {
      for (const { data } of jobs) sink.received(data.body);
      sink.completed(jobs.length);
    });
  }

  private async fetchAndComplete({ queue, batch }: Plan, sink: Sink): Promise<number> {
    const jobs = await this.boss.fetch(queue, { batchSize: batch });
    for (const { data } of jobs) sink.received(data.body);
    const ids = jobs.map(({ id }) => id);
    if (ids.length > 0) await this.boss.complete(queue, ids);
    else await sleep(EMPTY_PAUSE_MS);
    return ids.length;
  }

  async analyse(): Promise<void> {
    await this.checks.query('ANALYZE');
  }

  async close(): Promise<void> {
    await this.boss.stop({ graceful: false });
    await this.checks.end();
  }
}

/** Entry of the client's process. */
export function main(): void {
  serve(new PgBossClient());
}
