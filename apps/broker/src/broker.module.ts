import { type DynamicModule, Module } from '@nestjs/common';
import { APP_FILTER, APP_PIPE } from '@nestjs/core';
import { TerminusModule } from '@nestjs/terminus';
import { StoreModule } from '@rowmq/store';
import { BrowseController } from './admin/browse.controller.js';
import { QueueStatsService } from './admin/queue-stats.service.js';
import { QueuesController } from './admin/queues.controller.js';
import { QueuesService } from './admin/queues.service.js';
import { BROKER_CONFIG, type BrokerConfig } from './broker.config.js';
import { HealthController } from './health/health.controller.js';
import { ProblemFilter } from './http/problem.filter.js';
import { createValidationPipe } from './http/validation.js';
import { CombinedDemand } from './messages/combined-demand.js';
import { Flights } from './messages/flights.js';
import { MessagesController } from './messages/messages.controller.js';
import { MessagesService } from './messages/messages.service.js';
import { DatabaseMetrics } from './metrics/database-metrics.js';
import { MetricsController } from './metrics/metrics.controller.js';
import { MetricsModule } from './metrics/metrics.module.js';

/** The broker: REST over the store, and nothing that must survive it. */
@Module({})
export class BrokerModule {
  static forRoot(config: BrokerConfig): DynamicModule {
    return {
      module: BrokerModule,
      imports: [
        MetricsModule,
        StoreModule.forRoot({
          url: config.databaseUrl,
          tls: config.databaseTls,
          poolSize: config.poolSize,
          waitingRequests: config.maxWaitingRequests,
        }),
        TerminusModule.forRoot({ logger: false }),
      ],
      controllers: [MessagesController, QueuesController, BrowseController, HealthController, MetricsController],
      providers: [
        { provide: BROKER_CONFIG, useValue: config },
        { provide: APP_PIPE, useFactory: createValidationPipe },
        { provide: APP_FILTER, useClass: ProblemFilter },
        MessagesService,
        CombinedDemand,
        Flights,
        QueuesService,
        QueueStatsService,
        DatabaseMetrics,
      ],
    };
  }
}
