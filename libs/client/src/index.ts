export * from './core.js';
export { ConsumersService } from './nest/consumers.service.js';
export { Consumer, InjectQueue, OnBatch, OnMessage } from './nest/decorators.js';
export { type QueueRegistration, RegisteredQueue } from './nest/registered-queue.js';
export * from './nest/rowmq-configuration.error.js';
export * from './nest/rowmq.module.js';
export * from './nest/tokens.js';
