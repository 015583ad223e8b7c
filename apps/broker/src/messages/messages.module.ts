import { Module } from '@nestjs/common';
import { Commits } from './commits.js';
import { KeyLimits } from './key-limits.js';
import { KnownConsumers } from './known-consumers.js';
import { LeaseHolders } from './lease-holders.js';
import { MessagesController } from './messages.controller.js';
import { MessagesService } from './messages.service.js';
import { RequestLimits } from './request-limits.js';
import { WaitingConsumers } from './waiting-consumers.js';

/** The calls that carry messages: enqueue, dequeue, ack, nack, extend. */
@Module({
  controllers: [MessagesController],
  providers: [MessagesService, Commits, WaitingConsumers, LeaseHolders, KnownConsumers, KeyLimits, RequestLimits],
  exports: [Commits, MessagesService, WaitingConsumers, LeaseHolders, KnownConsumers, KeyLimits, RequestLimits],
})
export class MessagesModule {}
