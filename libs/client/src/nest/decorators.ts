import { Inject, Injectable, SetMetadata } from '@nestjs/common';
import type { PutScheduleRequest } from '@rowmq/contract';
import type { ConsumerEvents } from '../consumer/consumer-events.js';
import type { ConsumerOptions } from '../consumer/consumer-options.js';
import { DEFAULT_CONNECTION, getClientToken, getQueueToken, getTopicToken } from './tokens.js';

export const CONSUMER_METADATA = 'rowmq:consumer';
export const HANDLER_METADATA = 'rowmq:handler';
export const LISTENER_METADATA = 'rowmq:listener';
export const SCHEDULE_METADATA = 'rowmq:schedule';

export interface ConsumerMetadata {
  queue: string;
  connection: string;
  options: ConsumerOptions;
}

export type HandlerKind = 'message' | 'batch';

/** Injects a queue that was registered with `RowmqModule.registerQueue`. */
export const InjectQueue = (name: string, connection?: string): ParameterDecorator & PropertyDecorator =>
  Inject(getQueueToken(name, connection));

/** Injects a `Topic` that was registered with `RowmqModule.registerTopic`. */
export const InjectTopic = (name: string, connection?: string): ParameterDecorator & PropertyDecorator =>
  Inject(getTopicToken(name, connection));

/** Injects the client of a named connection. That of an unnamed one is `RowmqHttpClient`. */
export const InjectRowmq = (connection: string): ParameterDecorator & PropertyDecorator =>
  Inject(getClientToken(connection));

/**
 * Makes a class the consumer of a queue. One method, marked with {@link OnMessage} or {@link
 * OnBatch}, handles its messages. List the class among a module's providers.
 */
export function Consumer(
  queue: string,
  { connection = DEFAULT_CONNECTION, ...options }: ConsumerOptions & { connection?: string | undefined } = {},
): ClassDecorator {
  return (target) => {
    Injectable()(target);
    SetMetadata(CONSUMER_METADATA, { queue, connection, options } satisfies ConsumerMetadata)(target);
  };
}

/**
 * Marks the method of a {@link Consumer} that handles messages one by one: `(payload, message) =>
 * …`. If it returns, the message is acked. If it throws, the message is nacked with back-off.
 * `Reject` dead-letters it, and `Retry` gets it again after a delay.
 */
export const OnMessage = (): MethodDecorator => SetMetadata<string, HandlerKind>(HANDLER_METADATA, 'message');

/**
 * Marks the method of a {@link Consumer} that handles up to `batchSize` messages at once:
 * `(messages) => …`. It may settle each by itself. The other messages share its outcome.
 */
export const OnBatch = (): MethodDecorator => SetMetadata<string, HandlerKind>(HANDLER_METADATA, 'batch');

/** When a method runs, and the message of its ticks. */
export interface ScheduledOptions extends Pick<
  PutScheduleRequest,
  'cron' | 'everySeconds' | 'timeZone' | 'enabled' | 'missed'
> {
  /** Names the schedule for all services of the database. */
  name: string;
  /** Default: null. The queue's schema and format hold for it. */
  payload?: unknown;
  headers?: Record<string, string> | undefined;
  priority?: number | undefined;
  expiresInSeconds?: number | undefined;
}

/**
 * Marks a method of a {@link Consumer} that runs on each tick of a schedule: `(payload, message) =>
 * …`. The application registers the schedule at boot, or updates it. A tick is a message of the
 * consumer's queue, so one of all processes gets it, and it is acked, nacked and retried as any
 * other.
 */
export const Scheduled = (options: ScheduledOptions): MethodDecorator =>
  SetMetadata<string, ScheduledOptions>(SCHEDULE_METADATA, options);

/** Marks a method of a {@link Consumer} that hears one of the consumer's events. */
export const OnConsumerEvent = (event: keyof ConsumerEvents): MethodDecorator =>
  SetMetadata<string, keyof ConsumerEvents>(LISTENER_METADATA, event);
