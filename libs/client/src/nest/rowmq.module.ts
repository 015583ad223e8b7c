import { ConfigurableModuleBuilder, type DynamicModule, Module } from '@nestjs/common';
import { DiscoveryModule } from '@nestjs/core';
import { RowmqHttpClient, type RowmqClientOptions } from '../http/rowmq-http-client.js';
import { BrokerClient } from '../broker-client.js';
import { ConsumerExplorer } from './consumer-explorer.js';
import { ConsumersService } from './consumers.service.js';
import { type QueueRegistration, RegisteredQueue } from './registered-queue.js';
import { getQueueToken } from './tokens.js';

const { ConfigurableModuleClass, MODULE_OPTIONS_TOKEN } = new ConfigurableModuleBuilder<RowmqClientOptions>()
  .setClassMethodName('forRoot')
  .setExtras({ isGlobal: true }, (definition, { isGlobal }) => ({ ...definition, global: isGlobal }))
  .build();

/** The queues of one `registerQueue`. */
@Module({})
class RowmqQueueModule {}

/**
 * RowMQ for a Nest application: `RowmqModule.forRoot({ url, apiKey })`, or `forRootAsync` where the settings have to be injected, once, in the root module. Each module registers the queues it uses.
 *
 * Consumers (`@Consumer`) begin when the application has started, and stop when it is closed, in `onModuleDestroy`: what handlers use should be closed later, in `onApplicationShutdown`. Call
 * `app.enableShutdownHooks()`, or a signal ends the process at once.
 */
@Module({
  imports: [DiscoveryModule],
  providers: [
    ConsumerExplorer,
    ConsumersService,
    {
      provide: RowmqHttpClient,
      inject: [MODULE_OPTIONS_TOKEN],
      useFactory: (options: RowmqClientOptions) => new RowmqHttpClient(options),
    },
    { provide: BrokerClient, useExisting: RowmqHttpClient },
  ],
  exports: [BrokerClient, RowmqHttpClient, ConsumersService],
})
export class RowmqModule extends ConfigurableModuleClass {
  /** Queues that a module enqueues to or consumes: `@InjectQueue(name)` injects a {@link RegisteredQueue}. */
  static registerQueue(...registrations: [QueueRegistration, ...QueueRegistration[]]): DynamicModule {
    const providers = registrations.map((registration) => ({
      provide: getQueueToken(registration.name),
      inject: [BrokerClient],
      useFactory: (client: BrokerClient) => new RegisteredQueue(client, registration),
    }));
    return { module: RowmqQueueModule, providers, exports: providers };
  }
}
