import { Global, Module } from '@nestjs/common';
import { STORE_OBSERVER } from '@rowmq/store';
import { BuildInfo } from './build-info.js';
import { DatabaseMetrics } from './database-metrics.js';
import { DatabaseStrain } from './database-strain.js';
import { Metrics } from './metrics.js';
import { MetricsController } from './metrics.controller.js';
import { Pressure } from './pressure.js';
import { ReaperMetrics } from './reaper-metrics.js';

/**
 * The broker's metrics. It is global because the store looks for its observer in global modules.
 */
@Global()
@Module({
  controllers: [MetricsController],
  providers: [
    Metrics,
    Pressure,
    BuildInfo,
    DatabaseMetrics,
    DatabaseStrain,
    ReaperMetrics,
    { provide: STORE_OBSERVER, useExisting: Metrics },
  ],
  exports: [Metrics, Pressure, DatabaseMetrics, STORE_OBSERVER],
})
export class MetricsModule {}
