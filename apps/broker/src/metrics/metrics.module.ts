import { Global, Module } from '@nestjs/common';
import { STORE_OBSERVER } from '@rowmq/store';
import { DatabaseMetrics } from './database-metrics.js';
import { Metrics } from './metrics.js';
import { MetricsController } from './metrics.controller.js';
import { ReaperMetrics } from './reaper-metrics.js';

/** The broker's metrics. Global, because every feature counts, and because the store looks for its observer in every module. */
@Global()
@Module({
  controllers: [MetricsController],
  providers: [Metrics, DatabaseMetrics, ReaperMetrics, { provide: STORE_OBSERVER, useExisting: Metrics }],
  exports: [Metrics, DatabaseMetrics, STORE_OBSERVER],
})
export class MetricsModule {}
