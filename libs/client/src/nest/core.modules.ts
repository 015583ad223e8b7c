import { Global, Inject, Module } from '@nestjs/common';
import { DiscoveryModule, ModulesContainer } from '@nestjs/core';
import { ConsumerExplorer } from './consumer-explorer.js';
import { ConsumersService } from './consumers.service.js';
import { RowmqHealthIndicator } from './health-indicator.js';
import { placeHooks } from './hook-order.js';
import { QueuesService } from './queues.service.js';

/** One per application, however many connections there are. Its hooks run first at the start. */
@Global()
@Module({
  imports: [DiscoveryModule],
  providers: [ConsumerExplorer, QueuesService],
  exports: [QueuesService],
})
export class RowmqQueuesModule {
  constructor(@Inject(ModulesContainer) modules: ModulesContainer) {
    placeHooks(modules, RowmqQueuesModule, 'first to start');
  }
}

/** One per application. Its hooks run last at the start, and so first at the stop. */
@Global()
@Module({
  imports: [RowmqQueuesModule],
  providers: [ConsumersService, RowmqHealthIndicator],
  exports: [ConsumersService, RowmqHealthIndicator],
})
export class RowmqConsumersModule {
  constructor(@Inject(ModulesContainer) modules: ModulesContainer) {
    placeHooks(modules, RowmqConsumersModule, 'last to start');
  }
}
