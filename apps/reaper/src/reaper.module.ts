import { type DynamicModule, Module } from '@nestjs/common';
import { ScheduleModule } from '@nestjs/schedule';
import { StoreModule } from '@rowmq/store';
import { CreatePartitions } from './duties/create-partitions.js';
import { DeadLetterDeliveries } from './duties/dead-letter-deliveries.js';
import { DropPartitions } from './duties/drop-partitions.js';
import type { Duty } from './duties/duty.js';
import { EnqueueTicks } from './duties/enqueue-ticks.js';
import { ExpireDeliveries } from './duties/expire-deliveries.js';
import { ForgetJobs } from './duties/forget-jobs.js';
import { ForgetWithdrawn } from './duties/forget-withdrawn.js';
import { KeepHistory } from './duties/keep-history.js';
import { PruneAudit } from './duties/prune-audit.js';
import { PruneRuns } from './duties/prune-runs.js';
import { RemoveDeduplication } from './duties/remove-deduplication.js';
import { RemoveDeletedQueues } from './duties/remove-deleted-queues.js';
import { ThinPartitions } from './duties/thin-partitions.js';
import { HealthService } from './health.service.js';
import { REAPER_CONFIG, type ReaperConfig } from './reaper.config.js';
import { DUTIES, ReaperService } from './reaper.service.js';
import { TickService } from './tick.service.js';

/**
 * Partitions come first: messages that are stored without one cost more work than any delay here.
 */
const ALL = [
  CreatePartitions,
  ExpireDeliveries,
  DeadLetterDeliveries,
  RemoveDeletedQueues,
  RemoveDeduplication,
  DropPartitions,
  ThinPartitions,
  ForgetWithdrawn,
  KeepHistory,
  ForgetJobs,
  PruneRuns,
  PruneAudit,
];

/** The reaper: scheduled removal of expired, settled and deleted data. */
@Module({})
export class ReaperModule {
  static forRoot(config: ReaperConfig): DynamicModule {
    return {
      module: ReaperModule,
      imports: [
        StoreModule.forRoot({
          url: config.databaseUrl,
          tls: config.databaseTls,
          untestedAllowed: config.databaseUntested,
          poolSize: config.poolSize,
        }),
        ScheduleModule.forRoot(),
      ],
      providers: [
        { provide: REAPER_CONFIG, useValue: config },
        ...ALL,
        { provide: DUTIES, useFactory: (...duties: Duty[]) => duties, inject: ALL },
        ReaperService,
        EnqueueTicks,
        TickService,
        HealthService,
      ],
    };
  }
}
