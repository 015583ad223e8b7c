import { Module } from '@nestjs/common';
import { MessagesModule } from '../messages/messages.module.js';
import { BrowseController } from './browse.controller.js';
import { CancelController } from './cancel.controller.js';
import { DeadLetterMetrics } from './dead-letter-metrics.js';
import { HistoryController } from './history.controller.js';
import { MinuteReports } from './minute-reports.js';
import { OneMessageController } from './one-message.controller.js';
import { OverviewController } from './overview.controller.js';
import { OverviewService } from './overview.service.js';
import { QueueMetrics } from './queue-metrics.js';
import { QueueStatsService } from './queue-stats.service.js';
import { QueuesController } from './queues.controller.js';
import { QueuesService } from './queues.service.js';
import { ReplayController } from './replay.controller.js';
import { ReplayService } from './replay.service.js';

/** The admin calls: queues and their settings, what is in them, and the reaper's runs. */
@Module({
  imports: [MessagesModule],
  controllers: [
    QueuesController,
    BrowseController,
    HistoryController,
    OverviewController,
    CancelController,
    OneMessageController,
    ReplayController,
  ],
  providers: [
    QueuesService,
    ReplayService,
    MinuteReports,
    QueueStatsService,
    QueueMetrics,
    OverviewService,
    DeadLetterMetrics,
  ],
  exports: [QueuesService],
})
export class QueuesModule {}
