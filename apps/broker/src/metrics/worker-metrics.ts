import cluster, { type Worker } from 'node:cluster';
import { Logger } from '@nestjs/common';
import { RowmqError } from '@rowmq/contract';
import { AggregatorRegistry, type Registry } from 'prom-client';

/** A primary waits so long for its workers' metrics. */
const COLLECT_MS = 5000;
/** Longer than that. */
const ANSWER_MS = 6000;

/** A worker asks its primary for the metrics of all workers. */
interface Scrape {
  scrape: number;
}

/** The primary's answer. Without a text, the workers did not answer. */
interface Scraped {
  scraped: number;
  text?: string;
}

/** The primary asks a worker for its metrics. */
interface Collect {
  collect: number;
}

/** A worker's metrics, as JSON. */
interface Collected {
  collected: number;
  metrics: object;
}

/** This worker's number, from 1. A restarted one has its predecessor's. Undefined: no worker. */
export const WORKER_NUMBER = cluster.isWorker ? Number(process.argv[3]) : undefined;

/** Lets the primary add up the workers' metrics for each worker that is scraped. */
export function answerScrapes(): void {
  const all = new AllWorkers(() => Object.values(cluster.workers ?? {}).filter((worker) => worker !== undefined));
  cluster.on('message', (worker: Worker, message: Partial<Scrape & Collected>) => {
    all.took(message);
    const { scrape } = message;
    if (typeof scrape !== 'number') return;
    const answer = (text?: string): void =>
      void worker.send({ scraped: scrape, ...(text !== undefined && { text }) } satisfies Scraped, () => undefined);
    all.text().then(answer, () => answer());
  });
}

/**
 * The metrics of all workers, added up in their primary.
 *
 * prom-client can collect them, too. But it keeps the other workers' answers for ever if one
 * worker never answers, and a stuck worker leaves out every scrape.
 */
export class AllWorkers {
  private readonly collections = new Map<number, { taken: object[]; left: number; done: (isWhole: boolean) => void }>();
  private lastCollection = 0;

  constructor(private readonly workers: () => readonly Pick<Worker, 'isConnected' | 'send'>[]) {}

  /** Collections that wait for an answer. */
  get open(): number {
    return this.collections.size;
  }

  /** Rejects unless every worker answers in time. */
  async text(): Promise<string> {
    const asked = this.workers().filter((worker) => worker.isConnected());
    const collect = (this.lastCollection += 1);
    const taken: object[] = [];
    let timer: NodeJS.Timeout | undefined;
    const isWhole = await new Promise<boolean>((done) => {
      this.collections.set(collect, { taken, left: asked.length, done });
      timer = setTimeout(() => done(false), COLLECT_MS);
      for (const worker of asked) worker.send({ collect } satisfies Collect, (error) => error && done(false));
      if (asked.length === 0) done(true);
    });
    clearTimeout(timer);
    this.collections.delete(collect);
    if (!isWhole) throw new Error('a worker did not tell its metrics');
    return AggregatorRegistry.aggregate(taken).metrics();
  }

  /** Takes a message of a worker, which may be its metrics. */
  took({ collected, metrics }: Partial<Collected>): void {
    const collection = this.collections.get(collected ?? 0);
    if (collection === undefined || metrics === undefined) return;
    collection.taken.push(metrics);
    collection.left -= 1;
    if (collection.left === 0) collection.done(true);
  }
}

/** One worker's side: it reports its own metrics to the primary, and gets the sums from there. */
export class WorkerMetrics {
  private readonly logger = new Logger(WorkerMetrics.name);
  private readonly waiting = new Map<number, (text: string | undefined) => void>();
  private lastScrape = 0;

  constructor(own: Registry) {
    process.on('message', (message: Partial<Scraped & Collect>) => {
      const { collect } = message;
      if (typeof collect === 'number') void this.tell(collect, own);
      if (typeof message.scraped === 'number') this.waiting.get(message.scraped)?.(message.text);
    });
  }

  /** Without an answer, the primary gives up after a while. */
  private async tell(collected: number, own: Registry): Promise<void> {
    try {
      const metrics = await own.getMetricsAsJSON();
      process.send?.({ collected, metrics } satisfies Collected, undefined, undefined, () => undefined);
    } catch (error) {
      this.logger.warn(`Could not tell this worker's metrics: ${String(error)}`);
    }
  }

  /**
   * The metrics of all workers. Throws `overloaded` when one of them does not answer. Without its
   * part, the counters would seem to be reset.
   */
  async text(): Promise<string> {
    const scrape = (this.lastScrape += 1);
    let timer: NodeJS.Timeout | undefined;
    const text = await new Promise<string | undefined>((resolve) => {
      this.waiting.set(scrape, resolve);
      timer = setTimeout(() => resolve(undefined), ANSWER_MS).unref();
      process.send?.({ scrape } satisfies Scrape, undefined, undefined, (error) => error && resolve(undefined));
    });
    clearTimeout(timer);
    this.waiting.delete(scrape);
    if (text !== undefined) return text;
    throw new RowmqError('overloaded', 'The other workers of this broker do not answer. Try again later.', {
      retryAfterSeconds: 1,
    });
  }
}
