import { type DynamicModule, Module } from '@nestjs/common';
import { DiscoveryModule } from '@nestjs/core';
import { BrokerClient } from '../broker-client.js';
import { ConsumerExplorer } from '../nest/consumer-explorer.js';
import { ConsumersService } from '../nest/consumers.service.js';
import { InMemoryBroker } from './in-memory-broker.js';

/**
 * Replaces `RowmqModule.forRoot` in a service's unit tests. Queues and consumers work as with a
 * broker, in this process's memory. `app.get(InMemoryBroker)` shows the deliveries of the queues.
 */
@Module({
  imports: [DiscoveryModule],
  providers: [
    ConsumerExplorer,
    ConsumersService,
    { provide: InMemoryBroker, useFactory: () => new InMemoryBroker() },
    { provide: BrokerClient, useExisting: InMemoryBroker },
  ],
  exports: [BrokerClient, InMemoryBroker, ConsumersService],
})
export class RowmqTestingModule {
  static forRoot(): DynamicModule {
    return { module: RowmqTestingModule, global: true };
  }
}
