/* For any Node.js program, without a framework. */
export * from '@rowmq/contract';
export * from './broker-client.js';
export { type ConsumerEvents } from './consumer/consumer-events.js';
export { type ConsumerOptions, type ConsumerSettings } from './consumer/consumer-options.js';
export { Message, type Settlement } from './consumer/message.js';
export { type BatchHandler, type Handler, type MessageHandler } from './consumer/handling.js';
export * from './consumer/outcomes.js';
export * from './consumer/queue-consumer.js';
export * from './http/broker-unreachable.error.js';
export * from './http/rowmq-http-client.js';
export { type EnqueueOptions, PayloadError, type PayloadOptions } from '@rowmq/contract/producer';
export { Queue } from './queue/queue.js';
export { type Published, type PublishOptions, Topic } from './topic/topic.js';
