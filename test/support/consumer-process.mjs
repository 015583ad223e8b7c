// A Nest service with one consumer, in a process of its own, on the compiled client. It tells its
// parent which messages it begins and finishes.
import 'reflect-metadata';
import { setTimeout as sleep } from 'node:timers/promises';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Consumer, OnMessage, RowmqModule } from '@rowmq/client';

const { url, queue, handlerMs, options } = JSON.parse(process.argv[2]);

class Worker {
  async handle(payload) {
    process.send({ began: payload });
    await sleep(handlerMs);
    process.send({ finished: payload });
  }
}
OnMessage()(Worker.prototype, 'handle', Object.getOwnPropertyDescriptor(Worker.prototype, 'handle'));
Consumer(queue, options)(Worker);

class WorkerModule {}
Module({
  imports: [RowmqModule.forRoot({ url }), RowmqModule.registerQueue({ name: queue })],
  providers: [Worker],
})(WorkerModule);

const app = await NestFactory.createApplicationContext(WorkerModule, { logger: ['error'] });
app.enableShutdownHooks();
process.send('ready');
