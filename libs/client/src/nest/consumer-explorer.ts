import { Injectable, type Type } from '@nestjs/common';
import { DiscoveryService, MetadataScanner, Reflector } from '@nestjs/core';
import type { Handler } from '../consumer/queue-consumer.js';
import { CONSUMER_METADATA, type ConsumerMetadata, HANDLER_METADATA, type HandlerKind } from './decorators.js';
import { RegisteredQueue } from './registered-queue.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';

/** A class with `@Consumer`, and its one handler. */
export interface FoundConsumer extends ConsumerMetadata {
  className: string;
  handler: Handler<unknown>;
}

type Method = (...args: unknown[]) => unknown;

/**
 * Finds the queues and consumers of an application.
 * @throws {@link RowmqConfigurationError} for a configuration that cannot work
 */
@Injectable()
export class ConsumerExplorer {
  readonly #discovery: DiscoveryService;
  readonly #scanner: MetadataScanner;
  readonly #reflector: Reflector;

  constructor(discovery: DiscoveryService, scanner: MetadataScanner, reflector: Reflector) {
    this.#discovery = discovery;
    this.#scanner = scanner;
    this.#reflector = reflector;
  }

  /**
   * Every registered queue, by name. If several modules register one, the one that says how to
   * create it.
   */
  queues(): Map<string, RegisteredQueue> {
    const queues = new Map<string, RegisteredQueue>();
    for (const { instance } of this.#discovery.getProviders()) {
      if (!(instance instanceof RegisteredQueue)) continue;
      const known = queues.get(instance.name);
      if (known !== undefined && known !== instance) assertSame(known, instance);
      if (known === undefined || instance.registration.create !== undefined) queues.set(instance.name, instance);
    }
    return queues;
  }

  /** Every consumer, at most one per queue. */
  consumers(): FoundConsumer[] {
    const byQueue = new Map<string, FoundConsumer>();
    const instances = new Set<unknown>();
    for (const wrapper of this.#discovery.getProviders()) {
      // The class of a provider from a factory, or of a given value, too.
      const type: unknown = (wrapper.instance as object | undefined)?.constructor ?? wrapper.metatype;
      if (typeof type !== 'function') continue;
      const metadata = this.#reflector.get<ConsumerMetadata | undefined>(CONSUMER_METADATA, type);
      if (metadata === undefined || instances.has(wrapper.instance)) continue;
      instances.add(wrapper.instance);
      const { name } = type as Type;
      if (!wrapper.isDependencyTreeStatic()) {
        throw new RowmqConfigurationError(
          `${name} consumes queue '${metadata.queue}' and is request-scoped, or depends on something that is: there is no request. Make it a singleton.`,
        );
      }
      const found = { ...metadata, className: name, handler: this.#handlerOf(name, wrapper.instance as object) };
      const other = byQueue.get(metadata.queue);
      if (other !== undefined) {
        throw new RowmqConfigurationError(
          `${other.className} and ${name} both consume queue '${metadata.queue}': each message would go to either. Give it one consumer, with a higher concurrency if need be.`,
        );
      }
      byQueue.set(metadata.queue, found);
    }
    return [...byQueue.values()];
  }

  #handlerOf(className: string, instance: object): Handler<unknown> {
    const prototype = Object.getPrototypeOf(instance) as Record<string, Method>;
    const handlers = this.#scanner.getAllMethodNames(prototype).flatMap((name) => {
      const method = prototype[name] as Method;
      const kind = this.#reflector.get<HandlerKind | undefined>(HANDLER_METADATA, method);
      return kind === undefined ? [] : [{ kind, name, method }];
    });
    const [handler, ...others] = handlers;
    if (handler === undefined) {
      throw new RowmqConfigurationError(
        `${className} has @Consumer and no handler: mark the method that takes the messages with @OnMessage() or @OnBatch().`,
      );
    }
    if (others.length > 0) {
      throw new RowmqConfigurationError(
        `${className} has several handlers (${handlers.map(({ name }) => name).join(', ')}): a consumer has one. Leave @OnMessage() or @OnBatch() on one of them.`,
      );
    }
    // Looked up at each call, so that a wrapper or a spy on the method takes effect.
    const call: Method = (...args) => (instance as Record<string, Method>)[handler.name]?.(...args);
    return handler.kind === 'batch' ? { batch: call } : { message: call };
  }
}

function assertSame(one: RegisteredQueue, other: RegisteredQueue): void {
  if (one.registration.schema === other.registration.schema && one.registration.format === other.registration.format)
    return;
  throw new RowmqConfigurationError(
    `Queue '${one.name}' is registered with different schemas or formats: its consumer could not know which to go by. Share one registration.`,
  );
}
