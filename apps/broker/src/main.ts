import 'reflect-metadata';
import { Logger } from '@nestjs/common';
import { runProcess } from '@rowmq/runtime';
import { readBrokerConfig } from './broker.config.js';
import { createBroker } from './http/server.js';

await runProcess('broker', async () => {
  const config = readBrokerConfig(process.env);
  const app = await createBroker(config);
  await app.listen(config.port, config.host);
  new Logger('broker').log(`listening on ${await app.getUrl()}`);
  return { app, stopSeconds: config.stopSeconds };
});
