import { Inject, Injectable, SetMetadata } from '@nestjs/common';
import type { ConsumerOptions } from '../consumer/consumer-options.js';
import { getQueueToken } from './tokens.js';

export const CONSUMER_METADATA = 'rowmq:consumer';
export const HANDLER_METADATA = 'rowmq:handler';

export interface ConsumerMetadata {
  queue: string;
  options: ConsumerOptions;
}

export type HandlerKind = 'message' | 'batch';

/** Injects a queue that was registered with `RowmqModule.registerQueue`. */
export const InjectQueue = (name: string): ParameterDecorator & PropertyDecorator => Inject(getQueueToken(name));

/**
 * Makes a class the consumer of a queue. One method, marked with {@link OnMessage} or {@link
 * OnBatch}, handles its messages. List the class among a module's providers.
 */
export function Consumer(queue: string, options: ConsumerOptions = {}): ClassDecorator {
  return (target) => {
    Injectable()(target);
    SetMetadata(CONSUMER_METADATA, { queue, options } satisfies ConsumerMetadata)(target);
  };
}

/**
 * Marks the method of a {@link Consumer} that handles messages one by one: `(payload, message) =>
 * …`. If it returns, the message is acked. If it throws, the message is nacked with back-off.
 * `Reject` dead-letters it, and `Retry` nacks it with a delay.
 */
export const OnMessage = (): MethodDecorator => SetMetadata<string, HandlerKind>(HANDLER_METADATA, 'message');

/**
 * Marks the method of a {@link Consumer} that handles up to `batchSize` messages at once:
 * `(messages) => …`. It may settle each by itself. The other messages share its outcome.
 */
export const OnBatch = (): MethodDecorator => SetMetadata<string, HandlerKind>(HANDLER_METADATA, 'batch');
