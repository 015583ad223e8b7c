export * from './core.js';
export { ConsumersService } from './nest/consumers.service.js';
export {
  Consumer,
  InjectQueue,
  InjectRowmq,
  InjectTopic,
  OnBatch,
  OnConsumerEvent,
  OnMessage,
  Scheduled,
  type ScheduledOptions,
} from './nest/decorators.js';
export { type RowmqHealth, RowmqHealthIndicator } from './nest/health-indicator.js';
export { type QueueRegistration, RegisteredQueue } from './nest/registered-queue.js';
export * from './nest/rowmq-configuration.error.js';
export type { TopicRegistration } from './nest/registered-topic.js';
export { type QueueAsyncRegistration, RowmqModule } from './nest/rowmq.module.js';
export { getClientToken, getQueueToken, getTopicToken } from './nest/tokens.js';
