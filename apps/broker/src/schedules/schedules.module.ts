import { Module } from '@nestjs/common';
import { MessagesModule } from '../messages/messages.module.js';
import { TopicsModule } from '../topics/topics.module.js';
import { SchedulesController } from './schedules.controller.js';
import { SchedulesService } from './schedules.service.js';

/** Schedules: when to enqueue or publish which message. The reaper carries them out. */
@Module({
  imports: [MessagesModule, TopicsModule],
  controllers: [SchedulesController],
  providers: [SchedulesService],
})
export class SchedulesModule {}
