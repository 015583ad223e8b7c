import { Inject, Injectable } from '@nestjs/common';
import { DiscoveryService, MetadataScanner, Reflector } from '@nestjs/core';
import { isDeepStrictEqual } from 'node:util';
import type { BrokerClient } from '../broker-client.js';
import type { ConsumerEvents } from '../consumer/consumer-events.js';
import type { Handler } from '../consumer/handling.js';
import { quietly } from '../consumer/thrown.js';
import { RowmqConnection } from './connection.js';
import {
  CONSUMER_METADATA,
  type ConsumerMetadata,
  HANDLER_METADATA,
  type HandlerKind,
  LISTENER_METADATA,
  SCHEDULE_METADATA,
  type ScheduledOptions,
} from './decorators.js';
import { assertComplete } from './queue-check.js';
import { RegisteredQueue } from './registered-queue.js';
import { RegisteredTopic, type TopicRegistration } from './registered-topic.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';
import { type FoundSchedule, withSchedules } from './scheduled-handler.js';
import { DEFAULT_CONNECTION } from './tokens.js';

type Wrapper = ReturnType<DiscoveryService['getProviders']>[number];
type Method = (...args: unknown[]) => unknown;

/** A method with `@OnConsumerEvent`. */
export interface FoundListener {
  event: keyof ConsumerEvents;
  call: Method;
}

/** A class with `@Consumer`, its one handler, and its schedules. */
export interface FoundConsumer extends ConsumerMetadata {
  className: string;
  handler: Handler<unknown>;
  schedules: FoundSchedule[];
  listeners: FoundListener[];
}

/** Methods of a class with one of the decorators. */
interface Marked<T> {
  name: string;
  mark: T;
}

/**
 * The events, to find typing errors in JavaScript. The compiler checks that none is missing.
 */
const EVENTS: Record<keyof ConsumerEvents, true> = {
  dequeued: true,
  dequeueFailed: true,
  handlerFailed: true,
  leaseLost: true,
  released: true,
  expired: true,
  extendFailed: true,
  settleFailed: true,
  listenerFailed: true,
};

/** Decorators that have an effect in a consumer only, by their metadata. */
const MARKS = {
  [HANDLER_METADATA]: '@OnMessage or @OnBatch',
  [LISTENER_METADATA]: '@OnConsumerEvent',
  [SCHEDULE_METADATA]: '@Scheduled',
};

/**
 * Finds the connections, queues and consumers of an application.
 * @throws {@link RowmqConfigurationError} for a configuration that cannot work
 */
@Injectable()
export class ConsumerExplorer {
  readonly #discovery: DiscoveryService;
  readonly #scanner: MetadataScanner;
  readonly #reflector: Reflector;

  constructor(
    @Inject(DiscoveryService) discovery: DiscoveryService,
    @Inject(MetadataScanner) scanner: MetadataScanner,
    @Inject(Reflector) reflector: Reflector,
  ) {
    this.#discovery = discovery;
    this.#scanner = scanner;
    this.#reflector = reflector;
  }

  /** Every client, also of connections that contradict each other. */
  clients(): Set<BrokerClient> {
    return new Set([...this.#instances(RowmqConnection)].map(({ client }) => client));
  }

  /** Every connection, by name. */
  connections(): Map<string, RowmqConnection> {
    const connections = new Map<string, RowmqConnection>();
    for (const connection of this.#instances(RowmqConnection)) {
      if (connections.has(connection.name)) {
        const which = connection.name === DEFAULT_CONNECTION ? 'without a name' : `with the name '${connection.name}'`;
        throw new RowmqConfigurationError(
          `RowmqModule.forRoot is imported twice ${which}: its queues and consumers cannot know which one is meant. Import it once, in the root module, or give each connection a name of its own.`,
        );
      }
      connections.set(connection.name, connection);
    }
    return connections;
  }

  /**
   * Every registered queue of a connection, by the name that `@Consumer` uses. If several modules
   * register one, the one that says how to create it. They share one format and one schema, which
   * one of them may have named for all.
   */
  queues(connection: string): Map<string, RegisteredQueue> {
    const byAlias = new Map<string, RegisteredQueue>();
    const byName = new Map<string, RegisteredQueue>();
    const registered = [...this.#instances(RegisteredQueue)].filter((queue) => queue.connection === connection);
    for (const queue of registered) {
      assertComplete(queue.registration);
      const [known, namesake] = [byAlias.get(queue.alias), byName.get(queue.name)];
      if (known !== undefined && known.name !== queue.name) {
        throw new RowmqConfigurationError(
          `Two registrations are called '${queue.alias}', for the queues '${known.name}' and '${queue.name}': @InjectQueue('${queue.alias}') cannot mean both.`,
        );
      }
      if (namesake !== undefined) {
        assertSame(namesake, queue);
        namesake.inherit(queue.registration);
        queue.inherit(namesake.registration);
      }
      if (known === undefined || createsMore(queue, known)) byAlias.set(queue.alias, queue);
      if (namesake === undefined || createsMore(queue, namesake)) byName.set(queue.name, queue);
    }
    for (const queue of registered) queue.inherit(byName.get(queue.name)?.registration ?? {});
    return byAlias;
  }

  /** One registration of each topic of a connection: one that creates it, if there is. */
  topics(connection: string): TopicRegistration[] {
    const byName = new Map<string, TopicRegistration>();
    for (const { connection: own, registration } of this.#instances(RegisteredTopic)) {
      if (own !== connection) continue;
      const known = byName.get(registration.name);
      if (typeof known?.create === 'object' || (known?.create === true && typeof registration.create !== 'object'))
        continue;
      byName.set(registration.name, registration);
    }
    return [...byName.values()];
  }

  /** Every consumer, at most one per queue. */
  consumers(): FoundConsumer[] {
    const found: FoundConsumer[] = [];
    const modules = new Map<FoundConsumer, string>();
    const instances = new Set<unknown>();
    for (const { wrapper, isController } of this.#wrappers()) {
      // The class of a provider from a factory, or of a given value, too.
      const type: unknown = quietly(() => (wrapper.instance as object | null)?.constructor) ?? wrapper.metatype;
      if (typeof type !== 'function' || instances.has(wrapper.instance ?? type)) continue;
      instances.add(wrapper.instance ?? type);
      const { name } = type;
      const metadata = this.#reflector.get<ConsumerMetadata | undefined>(CONSUMER_METADATA, type);
      if (metadata === undefined) {
        this.#assertNoMarks(type);
        continue;
      }
      if (isController) {
        throw new RowmqConfigurationError(
          `${name} consumes queue '${metadata.queue}' but is listed among the controllers of ${moduleOf(wrapper)}, where nothing starts it. List it among the providers.`,
        );
      }
      if (!wrapper.isDependencyTreeStatic()) {
        throw new RowmqConfigurationError(
          `${name} consumes queue '${metadata.queue}' but it, or a dependency of it, is request-scoped, and there is no request. Make it a singleton.`,
        );
      }
      if (wrapper.isTransient) {
        throw new RowmqConfigurationError(
          `${name} consumes queue '${metadata.queue}' but is transient, so Nest makes no instance of its own for the consumer. Make it a singleton.`,
        );
      }
      const instance = wrapper.instance as object;
      const schedules = this.#schedulesOf(instance);
      const consumer = {
        ...metadata,
        className: name,
        handler: this.#handlerOf(name, instance, schedules),
        schedules,
        listeners: this.#listenersOf(name, instance),
      };
      const other = found.find(
        ({ queue, connection }) => queue === consumer.queue && connection === consumer.connection,
      );
      if (other !== undefined) throw twice(other, consumer, [modules.get(other) ?? '', moduleOf(wrapper)]);
      found.push(consumer);
      modules.set(consumer, moduleOf(wrapper));
    }
    return found;
  }

  #wrappers(): { wrapper: Wrapper; isController: boolean }[] {
    return [
      ...this.#discovery.getProviders().map((wrapper) => ({ wrapper, isController: false })),
      ...this.#discovery.getControllers().map((wrapper) => ({ wrapper, isController: true })),
    ];
  }

  /** The distinct providers of a class. A module that exports a provider may show it again. */
  #instances<T>(type: abstract new (...args: never[]) => T): Set<T> {
    const all = this.#discovery.getProviders().map((wrapper): unknown => wrapper.instance);
    return new Set(all.filter((instance): instance is T => instance instanceof type));
  }

  #handlerOf(className: string, instance: object, schedules: readonly FoundSchedule[]): Handler<unknown> {
    const handlers = this.#marked<HandlerKind>(HANDLER_METADATA, Object.getPrototypeOf(instance) as object);
    const [handler, ...others] = handlers;
    if (handler === undefined && schedules.length === 0) {
      throw new RowmqConfigurationError(
        `${className} has @Consumer but no handler: mark the method that handles messages with @OnMessage() or @OnBatch(), or one that runs at times with @Scheduled().`,
      );
    }
    if (others.length > 0) {
      throw new RowmqConfigurationError(
        `${className} has several handlers (${handlers.map(({ name }) => name).join(', ')}): a consumer has one. Leave @OnMessage() or @OnBatch() on one of them.`,
      );
    }
    return withSchedules(className, handler && toHandler(handler, instance), schedules);
  }

  #schedulesOf(instance: object): FoundSchedule[] {
    const marked = this.#marked<ScheduledOptions>(SCHEDULE_METADATA, Object.getPrototypeOf(instance) as object);
    return marked.map(({ name, mark: options }) => ({ method: name, options, call: methodOf(instance, name) }));
  }

  #listenersOf(className: string, instance: object): FoundListener[] {
    const marked = this.#marked<keyof ConsumerEvents>(LISTENER_METADATA, Object.getPrototypeOf(instance) as object);
    return marked.map(({ name, mark: event }) => {
      if (Object.hasOwn(EVENTS, event)) return { event, call: methodOf(instance, name) };
      throw new RowmqConfigurationError(
        `${className}.${name} has @OnConsumerEvent('${event}'), but a consumer has no such event; it has ${Object.keys(EVENTS).join(', ')}.`,
      );
    });
  }

  /** A handler or listener in a class without `@Consumer` would never be called. */
  #assertNoMarks(type: { name: string; prototype?: unknown }): void {
    const { prototype } = type;
    if (typeof prototype !== 'object' || prototype === null) return;
    for (const [key, decorator] of Object.entries(MARKS)) {
      const [marked] = this.#marked(key, prototype);
      if (marked === undefined) continue;
      throw new RowmqConfigurationError(
        `${type.name}.${marked.name} has ${decorator}, but ${type.name} has no @Consumer(queue), so nothing would ever call it. Add @Consumer, or remove the decorator.`,
      );
    }
  }

  #marked<T>(key: string, prototype: object): Marked<T>[] {
    return this.#scanner.getAllMethodNames(prototype).flatMap((name) => {
      const method = (prototype as Record<string, Method>)[name] as Method;
      const mark = this.#reflector.get<T | undefined>(key, method);
      return mark === undefined ? [] : [{ name, mark }];
    });
  }
}

function toHandler({ name, mark }: Marked<HandlerKind>, instance: object): Handler<unknown> {
  const call = methodOf(instance, name);
  return mark === 'batch' ? { batch: call } : { message: call };
}

/** Looked up at each call, so that a wrapper or a spy on the method takes effect. */
function methodOf(instance: object, name: string): Method {
  return (...args) => (instance as Record<string, Method>)[name]?.(...args);
}

function moduleOf({ host }: Wrapper): string {
  return host?.metatype?.name ?? 'a module';
}

function twice(one: FoundConsumer, other: FoundConsumer, [first, second]: [string, string]): RowmqConfigurationError {
  return new RowmqConfigurationError(
    one.className === other.className
      ? `${one.className}, which consumes queue '${one.queue}', is provided twice, by ${first} and ${second}: there would be two consumers. Provide it in one module, and export it from there if others need it.`
      : `${one.className} and ${other.className} both consume queue '${one.queue}', and each message would go to only one of them. Keep one consumer, with a higher concurrency if needed.`,
  );
}

/** Whether a registration says more about how to create its queue than another one. */
function createsMore({ registration: { create } }: RegisteredQueue, { registration }: RegisteredQueue): boolean {
  const weight = (value: unknown): number => (typeof value === 'object' ? 2 : value === true ? 1 : 0);
  return weight(create) > weight(registration.create);
}

/** A registration takes over from the other what it does not say itself. */
function differ(one: unknown, other: unknown): boolean {
  return one !== undefined && other !== undefined && one !== other;
}

function assertSame({ name, registration: one }: RegisteredQueue, { registration: other }: RegisteredQueue): void {
  if (differ(one.schema, other.schema) || differ(one.format, other.format)) {
    throw new RowmqConfigurationError(
      `Queue '${name}' is registered with different schemas or formats: its consumer cannot know which one holds. Share one registration.`,
    );
  }
  if (typeof one.create !== 'object' || typeof other.create !== 'object') return;
  if (isDeepStrictEqual(one.create, other.create) && (one.update ?? false) === (other.update ?? false)) return;
  throw new RowmqConfigurationError(
    `Queue '${name}' is registered twice with different settings (${JSON.stringify(one.create)}${one.update === true ? ' with update' : ''} and ${JSON.stringify(other.create)}${other.update === true ? ' with update' : ''}): the order of modules would decide which settings apply. Share one registration.`,
  );
}
