import cluster, { type Worker } from 'node:cluster';
import { RowmqError } from '@rowmq/contract';
import { AggregatorRegistry, type Registry } from 'prom-client';

/** Longer than prom-client waits for the workers. */
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

/** This worker's number, from 1. A restarted one has its predecessor's. Undefined: no worker. */
export const WORKER_NUMBER = cluster.isWorker ? Number(process.argv[3]) : undefined;

/** Lets the primary add up the workers' metrics for each worker that is scraped. */
export function answerScrapes(): void {
  const all = new AggregatorRegistry();
  cluster.on('message', (worker: Worker, message: Partial<Scrape>) => {
    const { scrape } = message;
    if (typeof scrape !== 'number') return;
    const answer = (text?: string): void =>
      void worker.send({ scraped: scrape, ...(text !== undefined && { text }) } satisfies Scraped, () => undefined);
    all.clusterMetrics().then(answer, () => answer());
  });
}

/** One worker's side: it reports its own metrics to the primary, and gets the sums from there. */
export class WorkerMetrics {
  private readonly waiting = new Map<number, (text: string | undefined) => void>();
  private lastScrape = 0;

  constructor(own: Registry) {
    AggregatorRegistry.setRegistries(own);
    // It answers the primary's requests for this worker's metrics.
    void new AggregatorRegistry();
    process.on('message', (message: Partial<Scraped>) => {
      if (typeof message.scraped === 'number') this.waiting.get(message.scraped)?.(message.text);
    });
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
