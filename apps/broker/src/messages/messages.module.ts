import { Module } from '@nestjs/common';
import { CombinedDemand } from './combined-demand.js';
import { Flights } from './flights.js';
import { MessagesController } from './messages.controller.js';
import { MessagesService } from './messages.service.js';

/** The calls that carry messages: enqueue, dequeue, ack, nack, extend. */
@Module({
  controllers: [MessagesController],
  providers: [MessagesService, CombinedDemand, Flights],
  exports: [CombinedDemand],
})
export class MessagesModule {}
