import cluster from 'node:cluster';
import { type INestApplicationContext, Logger } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { RowmqError } from '@rowmq/contract';
import { type BrokerConfig, shareOfWorker } from '../broker.config.js';
import { createBroker } from '../http/server.js';
import { CombinedDemand } from '../messages/combined-demand.js';
import { Metrics } from '../metrics/metrics.js';
import { Announcements } from './announcements.js';
import type { FromWorker, ToWorker } from './worker-messages.js';

/** Longer than the primary waits for the other workers. */
const SCRAPE_MS = 5000;

/** Serves: alone, or as one of several workers behind the same port. */
export async function serve(config: BrokerConfig): Promise<{ app: NestFastifyApplication }> {
  // A worker that is started again has the number of the one before.
  const number = cluster.isWorker ? process.argv[3] : undefined;
  const app =
    number === undefined
      ? await createBroker(config, 'broker')
      : await createBroker(shareOfWorker(config), `broker worker ${number}`);
  await app.listen(config.port, config.host);
  new Logger('broker').log(`listening on ${await app.getUrl()}`);
  if (number !== undefined) joinWorkers(app);
  return { app };
}

/** Makes a broker that listens one of several: its consumers hear of messages that other workers took, and the other way round, and any worker answers with the metrics of all. */
function joinWorkers(app: INestApplicationContext): void {
  const demand = app.get(CombinedDemand);
  const metrics = app.get(Metrics);
  const scrapes = new Scrapes();
  const announcements = new Announcements((queues, sent) => tellPrimary({ kind: 'available', queues }, sent));

  demand.onUntaken = (queue) => announcements.add(queue);
  metrics.onForget = (queue) => tellPrimary({ kind: 'deleted', queue });
  metrics.text = async () => scrapes.ask();
  process.on('message', (message: ToWorker) => {
    switch (message.kind) {
      case 'available':
        for (const queue of message.queues) demand.wakeHere(queue);
        break;
      case 'deleted':
        metrics.drop(message.queue);
        break;
      case 'report':
        void report(metrics);
        break;
      case 'scraped':
        scrapes.answer(message.id, message.text);
        break;
    }
  });
  // A worker whose primary is gone would end at once; ours stops in order then, like every process of ours.
  if (cluster.worker !== undefined) cluster.worker.exitedAfterDisconnect = true;
}

/** A primary that is gone need not be told anything. */
function tellPrimary(message: FromWorker, sent?: () => void): void {
  process.send?.(message, undefined, undefined, () => sent?.());
}

async function report(metrics: Metrics): Promise<void> {
  tellPrimary({ kind: 'report', metrics: await metrics.registry.getMetricsAsJSON() });
}

/** Asks the primary for the metrics of all workers. */
class Scrapes {
  private readonly waiting = new Map<number, (text: string) => void>();
  private lastId = 0;

  /** Throws `overloaded` when no answer comes in time: a part would look as if counters had been reset. */
  async ask(): Promise<string> {
    const id = (this.lastId += 1);
    try {
      return await new Promise<string>((resolve, reject) => {
        this.waiting.set(id, resolve);
        setTimeout(() => {
          reject(
            new RowmqError('overloaded', 'The other workers do not answer; try again later.', { retryAfterSeconds: 1 }),
          );
        }, SCRAPE_MS).unref();
        tellPrimary({ kind: 'scrape', id });
      });
    } finally {
      this.waiting.delete(id);
    }
  }

  answer(id: number, text: string): void {
    this.waiting.get(id)?.(text);
  }
}
