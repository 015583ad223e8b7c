export * from './core.js';
export { ConsumersService } from './nest/consumers.service.js';
export { Consumer, InjectQueue, InjectRowmq, OnBatch, OnConsumerEvent, OnMessage } from './nest/decorators.js';
export { type RowmqHealth, RowmqHealthIndicator } from './nest/health-indicator.js';
export { type QueueRegistration, RegisteredQueue } from './nest/registered-queue.js';
export * from './nest/rowmq-configuration.error.js';
export { type QueueAsyncRegistration, RowmqModule } from './nest/rowmq.module.js';
export { getClientToken, getQueueToken } from './nest/tokens.js';
