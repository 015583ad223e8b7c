import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import { createLogger, runProcess } from '@rowmq/runtime';
import { readReaperConfig } from './reaper.config.js';
import { ReaperModule } from './reaper.module.js';

await runProcess('reaper', async () => {
  const config = readReaperConfig(process.env);
  const app = await NestFactory.createApplicationContext(ReaperModule.forRoot(config), {
    logger: createLogger('reaper'),
    abortOnError: false,
  });
  return { app, stopSeconds: config.stopSeconds };
});
