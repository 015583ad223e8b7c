import { type DynamicModule, Module } from '@nestjs/common';
import { BrokerClient } from '../broker-client.js';
import { RowmqHttpClient } from '../http/rowmq-http-client.js';
import { connectionProviders } from '../nest/connection-providers.js';
import { RowmqConsumersModule } from '../nest/core.modules.js';
import { DEFAULT_CONNECTION, getClientToken } from '../nest/tokens.js';
import { InMemoryBroker, type InMemoryBrokerOptions } from './in-memory-broker.js';

/**
 * Replaces `RowmqModule.forRoot` in a service's unit tests. Queues and consumers work as with a
 * broker, in this process's memory. `app.get(InMemoryBroker)` shows the deliveries of the queues,
 * and is injected in place of `RowmqHttpClient`.
 */
@Module({})
export class RowmqTestingModule {
  /**
   * @param options the name of a connection, if the application has several, and the broker's
   * largest body
   */
  static forRoot({
    name = DEFAULT_CONNECTION,
    ...options
  }: InMemoryBrokerOptions & { name?: string } = {}): DynamicModule {
    const isUnnamed = name === DEFAULT_CONNECTION;
    const token = isUnnamed ? RowmqHttpClient : getClientToken(name);
    const broker = isUnnamed
      ? [
          { provide: InMemoryBroker, useFactory: () => new InMemoryBroker(options) },
          { provide: RowmqHttpClient, useExisting: InMemoryBroker },
        ]
      : [{ provide: token, useFactory: () => new InMemoryBroker(options) }];
    return {
      module: RowmqTestingModule,
      global: true,
      imports: [RowmqConsumersModule],
      providers: [...broker, ...connectionProviders(name, token)],
      exports: isUnnamed ? [token, BrokerClient, InMemoryBroker] : [token],
    };
  }
}
