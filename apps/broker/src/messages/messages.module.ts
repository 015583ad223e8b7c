import { Module } from '@nestjs/common';
import { Commits } from './commits.js';
import { LeaseHolders } from './lease-holders.js';
import { MessagesController } from './messages.controller.js';
import { MessagesService } from './messages.service.js';
import { WaitingConsumers } from './waiting-consumers.js';

/** The calls that carry messages: enqueue, dequeue, ack, nack, extend. */
@Module({
  controllers: [MessagesController],
  providers: [MessagesService, Commits, WaitingConsumers, LeaseHolders],
  exports: [WaitingConsumers, LeaseHolders],
})
export class MessagesModule {}
