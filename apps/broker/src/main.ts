import 'reflect-metadata';
import cluster from 'node:cluster';
import type { AddressInfo } from 'node:net';
import { Logger } from '@nestjs/common';
import { createLogger, runProcess } from '@rowmq/runtime';
import { readBrokerConfig, shareOfWorker } from './broker.config.js';
import { whereItListens } from './http/where-it-listens.js';
import { WORKER_NUMBER } from './metrics/worker-metrics.js';
import { Workers } from './workers.js';

await runProcess('broker', async () => {
  const config = readBrokerConfig(process.env);
  const { workers: count, stopSeconds, host, port } = config;
  if (WORKER_NUMBER === undefined && count > 1) {
    Logger.overrideLogger(createLogger('broker'));
    const workers = new Workers(config);
    await workers.start();
    new Logger('broker').log(`${count} workers listen`);
    return { app: workers, stopSeconds, kill: () => workers.kill() };
  }
  // The primary of several workers answers no request, so it does not load the server.
  const { createBroker } = await import('./server.js');
  const app = await (WORKER_NUMBER === undefined
    ? createBroker(config, 'broker')
    : createBroker(shareOfWorker(config, WORKER_NUMBER), `broker worker ${WORKER_NUMBER}`));
  // Otherwise `localhost` is the one of two addresses that the resolver names first.
  await app.listen(port, host === 'localhost' ? '127.0.0.1' : host);
  new Logger('broker').log(`listening on ${whereItListens(app.getHttpServer().address() as AddressInfo, config)}`);
  // By default, Node ends a worker whose primary is gone. This one stops in order, as every process
  // of RowMQ does.
  if (cluster.worker !== undefined) cluster.worker.exitedAfterDisconnect = true;
  return { app, stopSeconds, isWorker: cluster.isWorker };
});
