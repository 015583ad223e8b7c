import 'reflect-metadata';
import cluster from 'node:cluster';
import { Logger } from '@nestjs/common';
import { createLogger, runProcess } from '@rowmq/runtime';
import { readBrokerConfig } from './broker.config.js';
import { Workers } from './cluster/workers.js';

await runProcess('broker', async () => {
  const config = readBrokerConfig(process.env);
  const { workers: count, stopSeconds } = config;
  if (cluster.isPrimary && count > 1) {
    Logger.overrideLogger(createLogger('broker'));
    const workers = new Workers(config);
    await workers.start();
    new Logger('broker').log(`${count} workers listen`);
    return { app: workers, stopSeconds, kill: () => workers.kill() };
  }
  // The primary of several workers answers no request, so it does not load the server.
  const { serve } = await import('./cluster/worker.js');
  return { ...(await serve(config)), stopSeconds, isWorker: cluster.isWorker };
});
