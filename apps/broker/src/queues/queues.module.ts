import { Module } from '@nestjs/common';
import { MessagesModule } from '../messages/messages.module.js';
import { BrowseController } from './browse.controller.js';
import { QueueMetrics } from './queue-metrics.js';
import { QueueStatsService } from './queue-stats.service.js';
import { QueuesController } from './queues.controller.js';
import { QueuesService } from './queues.service.js';

/** The admin calls: queues and their settings, what is in them, and the reaper's runs. */
@Module({
  imports: [MessagesModule],
  controllers: [QueuesController, BrowseController],
  providers: [QueuesService, QueueStatsService, QueueMetrics],
})
export class QueuesModule {}
