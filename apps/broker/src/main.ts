import 'reflect-metadata';
import cluster from 'node:cluster';
import type { AddressInfo } from 'node:net';
import { Logger } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { createLogger, runProcess, type Started } from '@rowmq/runtime';
import { type BrokerConfig, readBrokerConfig, shareOfWorker } from './broker.config.js';
import type { BrokerAdapter } from './http/broker-adapter.js';
import { whereItListens } from './http/where-it-listens.js';
import { WORKER_NUMBER } from './metrics/worker-metrics.js';
import { Workers } from './workers/workers.js';

await runProcess('broker', async () => {
  const config = readBrokerConfig(process.env);
  if (WORKER_NUMBER !== undefined) return startWorker(config, WORKER_NUMBER);
  return config.workers > 1 ? startPrimary(config) : startAlone(config);
});

async function startAlone(config: BrokerConfig): Promise<Started> {
  const { createBroker } = await import('./server.js');
  const app = await createBroker(config, 'broker');
  await app.listen(config.port, addressOf(config));
  logAddress(app.getHttpServer().address() as AddressInfo, config);
  await listenForOperations(app, config);
  return { app, stopSeconds: config.stopSeconds };
}

/** The primary of several workers answers no request, so it does not load the server. */
async function startPrimary(config: BrokerConfig): Promise<Started> {
  Logger.overrideLogger(createLogger('broker'));
  const workers = new Workers({ ...config, host: addressOf(config) });
  logAddress(await workers.start(), config);
  return { app: workers, stopSeconds: config.stopSeconds, kill: () => workers.kill() };
}

async function startWorker(config: BrokerConfig, number: number): Promise<Started> {
  const { createBroker } = await import('./server.js');
  const { leavePort, takeConnections } = await import('./workers/worker-port.js');
  const app = await createBroker(shareOfWorker(config, number), `broker worker ${number}`, leavePort);
  await app.init();
  await app.getHttpAdapter().getInstance().ready();
  await listenForOperations(app, config);
  takeConnections(app.getHttpServer());
  // By default, Node ends a worker whose primary is gone. This one stops in order, as every process
  // of RowMQ does.
  if (cluster.worker !== undefined) cluster.worker.exitedAfterDisconnect = true;
  return { app, stopSeconds: config.stopSeconds, isWorker: true };
}

/** Workers share the port by Node's own means. Connections that a stop resets carry no messages. */
async function listenForOperations(app: NestFastifyApplication, config: BrokerConfig): Promise<void> {
  if (config.operationsPort === undefined) return;
  const adapter = app.getHttpAdapter() as unknown as BrokerAdapter;
  const { address, port } = await adapter.listenForOperations(config.operationsPort, addressOf(config));
  new Logger('broker').log(`metrics and docs are at port ${port} of ${address}`);
}

/** Otherwise `localhost` is the one of two addresses that the resolver names first. */
function addressOf({ host }: BrokerConfig): string {
  return host === 'localhost' ? '127.0.0.1' : host;
}

function logAddress(address: AddressInfo, config: BrokerConfig): void {
  new Logger('broker').log(`listening on ${whereItListens(address, config)}`);
}
