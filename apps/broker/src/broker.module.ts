import { type DynamicModule, Module, type ValueProvider } from '@nestjs/common';
import { StoreModule } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from './broker.config.js';
import { HealthModule } from './health/health.module.js';
import { HttpModule } from './http/http.module.js';
import { MessagesModule } from './messages/messages.module.js';
import { MetricsModule } from './metrics/metrics.module.js';
import { QueuesModule } from './queues/queues.module.js';

/** The broker: REST over the store, and no state that must survive it. */
@Module({})
export class BrokerModule {
  /** @param ports what features need of the other processes of this broker: `PEERS`, `PEER_METRICS` */
  static forRoot(config: BrokerConfig, ports: readonly ValueProvider[] = []): DynamicModule {
    const providers = [{ provide: BROKER_CONFIG, useValue: config }, ...ports];
    return {
      module: BrokerModule,
      global: true,
      imports: [
        StoreModule.forRoot({
          url: config.databaseUrl,
          tls: config.databaseTls,
          poolSize: config.poolSize,
          waitingRequests: config.maxWaitingRequests,
        }),
        HttpModule,
        MetricsModule,
        HealthModule,
        MessagesModule,
        QueuesModule,
      ],
      providers,
      exports: providers.map(({ provide }) => provide),
    };
  }
}
