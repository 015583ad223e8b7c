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
 * RowMQ for a Nest application. Import `RowmqModule.forRoot({ url, apiKey })` once, in the root
 * module, or `forRootAsync` to inject the settings. Each module registers the queues that it uses.
 *
 * Consumers (`@Consumer`) start when the application has started, and stop in `onModuleDestroy`.
 * Close the resources of handlers later, in `onApplicationShutdown`. Call
 * `app.enableShutdownHooks()`, because otherwise a signal ends the process at once.
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
  /**
   * Registers the queues that a module enqueues to or consumes. `@InjectQueue(name)` injects a
   * {@link RegisteredQueue}.
   */
  static registerQueue(...registrations: [QueueRegistration, ...QueueRegistration[]]): DynamicModule {
    const providers = registrations.map((registration) => ({
      provide: getQueueToken(registration.name),
      inject: [BrokerClient],
      useFactory: (client: BrokerClient) => new RegisteredQueue(client, registration),
    }));
    return { module: RowmqQueueModule, providers, exports: providers };
  }
}
