import cluster from 'node:cluster';
import { type INestApplicationContext, Logger } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { type BrokerConfig, shareOfWorker } from '../broker.config.js';
import { createBroker } from '../http/server.js';
import { CombinedDemand } from '../messages/combined-demand.js';
import { Metrics } from '../metrics/metrics.js';
import { Announcements } from './announcements.js';
import { Scrapes } from './scrapes.js';
import type { FromWorker, ToWorker } from './worker-messages.js';

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
  const scrapes = new Scrapes((id) => tellPrimary({ kind: 'scrape', id }));
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
