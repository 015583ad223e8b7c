import { Module } from '@nestjs/common';
import { MessagesModule } from '../messages/messages.module.js';
import { PublishController } from './publish.controller.js';
import { PublishService } from './publish.service.js';
import { TopicsController } from './topics.controller.js';

/** Topics: their subscriptions, and the call that publishes to them. */
@Module({
  imports: [MessagesModule],
  controllers: [TopicsController, PublishController],
  providers: [PublishService],
  exports: [PublishService],
})
export class TopicsModule {}
