import { type DynamicModule, Module } from '@nestjs/common';
import { StoreModule } from '@rowmq/store';
import { AuditModule } from './audit/audit.module.js';
import { BROKER_CONFIG, type BrokerConfig } from './broker.config.js';
import { DashboardModule } from './dashboard/dashboard.module.js';
import { HealthModule } from './health/health.module.js';
import { HttpModule } from './http/http.module.js';
import { JobsModule } from './jobs/jobs.module.js';
import { KeysModule } from './keys/keys.module.js';
import { MessagesModule } from './messages/messages.module.js';
import { MetricsModule } from './metrics/metrics.module.js';
import { PeersModule } from './peers/peers.module.js';
import { QueuesModule } from './queues/queues.module.js';
import { SchedulesModule } from './schedules/schedules.module.js';
import { SqsModule } from './sqs/sqs.module.js';
import { TopicsModule } from './topics/topics.module.js';

/** The broker: REST over the store, and no state that must survive it. */
@Module({})
export class BrokerModule {
  static forRoot(config: BrokerConfig): DynamicModule {
    return {
      module: BrokerModule,
      global: true,
      imports: [
        StoreModule.forRoot({
          url: config.databaseUrl,
          tls: config.databaseTls,
          untestedAllowed: config.databaseUntested,
          poolSize: config.poolSize,
          waitingRequests: config.maxWaitingRequests,
        }),
        HttpModule,
        MetricsModule,
        HealthModule,
        KeysModule,
        AuditModule,
        DashboardModule,
        MessagesModule,
        QueuesModule,
        JobsModule,
        SchedulesModule,
        TopicsModule,
        PeersModule,
        SqsModule,
      ],
      providers: [{ provide: BROKER_CONFIG, useValue: config }],
      exports: [BROKER_CONFIG],
    };
  }
}
