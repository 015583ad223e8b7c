import cluster from 'node:cluster';
import { type INestApplicationContext, Logger, type ValueProvider } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { type BrokerConfig, shareOfWorker } from '../broker.config.js';
import { CombinedDemand } from '../messages/combined-demand.js';
import { PEERS, type Peers } from '../messages/peers.js';
import { Metrics } from '../metrics/metrics.js';
import { PEER_METRICS, type PeerMetrics } from '../metrics/peer-metrics.js';
import { createBroker } from '../server.js';
import { Announcements } from './announcements.js';
import { Scrapes } from './scrapes.js';
import type { FromWorker, ToWorker } from './worker-messages.js';

/** Runs a broker that listens: alone, or as one of several workers behind the same port. */
export async function serve(config: BrokerConfig): Promise<{ app: NestFastifyApplication }> {
  // A worker that is started again has the number of the one before.
  const number = cluster.isWorker ? process.argv[3] : undefined;
  const app = await (number === undefined ? createBroker(config, 'broker') : createWorker(config, number));
  await app.listen(config.port, config.host);
  new Logger('broker').log(`listening on ${await app.getUrl()}`);
  // By default, Node ends a worker whose primary is gone. This one stops in order, as every process of RowMQ does.
  if (cluster.worker !== undefined) cluster.worker.exitedAfterDisconnect = true;
  return { app };
}

/**
 * A broker that is one of several. Its consumers hear of messages that other workers stored, and the
 * other way round. Each worker answers a scrape with the metrics of all.
 */
async function createWorker(config: BrokerConfig, number: string): Promise<NestFastifyApplication> {
  const link = new PrimaryLink();
  const app = await createBroker(shareOfWorker(config), `broker worker ${number}`, link.ports);
  link.listen(app);
  return app;
}

/** The features' ports to the other workers, which the primary connects. */
class PrimaryLink {
  private readonly scrapes = new Scrapes((id) => tellPrimary({ kind: 'scrape', id }));
  private readonly announcements = new Announcements((queues, sent) =>
    tellPrimary({ kind: 'available', queues }, sent),
  );

  get ports(): ValueProvider[] {
    const peers: Peers = { wake: (queue) => this.announcements.add(queue) };
    const peerMetrics: PeerMetrics = {
      text: async () => this.scrapes.ask(),
      forget: (queue) => tellPrimary({ kind: 'deleted', queue }),
    };
    return [
      { provide: PEERS, useValue: peers },
      { provide: PEER_METRICS, useValue: peerMetrics },
    ];
  }

  /** Passes on to the application what the primary tells. */
  listen(app: INestApplicationContext): void {
    const demand = app.get(CombinedDemand);
    const metrics = app.get(Metrics);
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
          this.scrapes.answer(message.id, message.text);
          break;
      }
    });
  }
}

/** Does nothing if the primary is gone. */
function tellPrimary(message: FromWorker, sent?: () => void): void {
  process.send?.(message, undefined, undefined, () => sent?.());
}

async function report(metrics: Metrics): Promise<void> {
  tellPrimary({ kind: 'report', metrics: await metrics.registry.getMetricsAsJSON() });
}
