import { Global, Module } from '@nestjs/common';
import { STORE_OBSERVER } from '@rowmq/store';
import { Metrics } from './metrics.js';

/** The broker's metrics. Global, because the store counts on them as well: they are its observer. */
@Global()
@Module({
  providers: [Metrics, { provide: STORE_OBSERVER, useExisting: Metrics }],
  exports: [Metrics, STORE_OBSERVER],
})
export class MetricsModule {}
