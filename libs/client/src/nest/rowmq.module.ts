import {
  ConfigurableModuleBuilder,
  type DynamicModule,
  Inject,
  type InjectionToken,
  Module,
  type ModuleMetadata,
  Optional,
} from '@nestjs/common';
import { BrokerClient } from '../broker-client.js';
import { RowmqHttpClient, type RowmqClientOptions } from '../http/rowmq-http-client.js';
import { clientFor } from './connection.js';
import { connectionProviders } from './connection-providers.js';
import { RowmqConsumersModule } from './core.modules.js';
import { type QueueRegistration, RegisteredQueue } from './registered-queue.js';
import { RegisteredTopic, type TopicRegistration } from './registered-topic.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';
import { DEFAULT_CONNECTION, getClientToken, getQueueToken, getTopicToken } from './tokens.js';

const { ConfigurableModuleClass, MODULE_OPTIONS_TOKEN } = new ConfigurableModuleBuilder<RowmqClientOptions>()
  .setClassMethodName('forRoot')
  .setExtras(
    {
      /** The name of the connection, if the application has several. */
      name: DEFAULT_CONNECTION,
    },
    (definition, { name }) => connectionModule(definition, name),
  )
  .build();

interface Factory<T> extends Pick<ModuleMetadata, 'imports'> {
  inject?: InjectionToken[] | undefined;
  // oxlint-disable-next-line typescript/no-explicit-any -- Nest's own type of factories
  useFactory: (...args: any[]) => T | Promise<T>;
}

/**
 * A registration whose content is injected, except for its connection. The factory runs with the
 * connection's client, and so cannot choose it.
 */
export interface QueueAsyncRegistration extends Factory<Partial<Omit<QueueRegistration, 'connection'>>> {
  /**
   * The name in `@InjectQueue` and `@Consumer`. It is the queue's name, too, unless the factory
   * returns another one.
   */
  name: string;
  connection?: string | undefined;
}

/** The queues of one `registerQueue`, or the topics of one `registerTopic`. */
@Module({})
class RowmqRegistrationsModule {}

/**
 * RowMQ for a Nest application. Import `RowmqModule.forRoot({ url, apiKey })` once, in the root
 * module, or `forRootAsync` to inject the settings. Each module registers the queues that it uses.
 *
 * The queues and topics exist before any `onModuleInit`. Consumers (`@Consumer`) start after every
 * `onApplicationBootstrap`, and stop before every `onModuleDestroy`. Call
 * `app.enableShutdownHooks()`, because otherwise a signal ends the process at once.
 */
@Module({})
export class RowmqModule extends ConfigurableModuleClass {
  constructor(@Optional() @Inject(MODULE_OPTIONS_TOKEN) options: unknown) {
    super();
    if (options !== undefined) return;
    throw new RowmqConfigurationError(
      'RowmqModule is imported without forRoot: import RowmqModule.forRoot({ url }), or RowmqModule.registerQueue({ name }).',
    );
  }

  /**
   * Registers the queues that a module enqueues to or consumes. `@InjectQueue(name)` injects a
   * {@link RegisteredQueue}.
   */
  static registerQueue(...registrations: [QueueRegistration, ...QueueRegistration[]]): DynamicModule {
    return registrationsModule(
      registrations.map((registration) => ({
        ...registration,
        make: (client) => new RegisteredQueue(client, registration),
      })),
    );
  }

  /** Registers the topics that a module publishes to. `@InjectTopic(name)` injects a `Topic`. */
  static registerTopic(...registrations: [TopicRegistration, ...TopicRegistration[]]): DynamicModule {
    return registrationsModule(
      registrations.map((registration) => ({
        ...registration,
        what: 'Topic',
        token: getTopicToken(registration.name, registration.connection),
        make: (client) => new RegisteredTopic(client, registration),
      })),
    );
  }

  /** As {@link registerQueue}, for queues whose names or settings a factory makes. */
  static registerQueueAsync(...registrations: [QueueAsyncRegistration, ...QueueAsyncRegistration[]]): DynamicModule {
    return registrationsModule(
      registrations.map(({ name, connection, inject, useFactory }) => ({
        name,
        connection,
        inject,
        make: async (client, ...args) => {
          const made: Partial<QueueRegistration> = await useFactory(...args);
          if (made.connection !== undefined && made.connection !== connection) {
            throw new RowmqConfigurationError(
              `The factory of registerQueueAsync({ name: '${name}' }) returns the connection '${made.connection}', which has no effect there: put it beside useFactory.`,
            );
          }
          return new RegisteredQueue(client, { ...made, name: made.name ?? name, connection }, name);
        },
      })),
      registrations.flatMap(({ imports = [] }) => imports),
    );
  }
}

function connectionModule(definition: DynamicModule, name: string): DynamicModule {
  const isUnnamed = name === DEFAULT_CONNECTION;
  const token = isUnnamed ? RowmqHttpClient : getClientToken(name);
  const providers = [
    {
      provide: token,
      inject: [MODULE_OPTIONS_TOKEN],
      useFactory: (options: RowmqClientOptions) => new RowmqHttpClient(options),
    },
    ...connectionProviders(name, token),
  ];
  return {
    ...definition,
    global: true,
    imports: [...(definition.imports ?? []), RowmqConsumersModule],
    providers: [...(definition.providers ?? []), ...providers],
    exports: isUnnamed ? [token, BrokerClient] : [token],
  };
}

interface Named<Made> {
  /** For errors. */
  what?: 'Topic';
  name: string;
  connection?: string | undefined;
  /** The queue's token when absent. */
  token?: string;
  inject?: InjectionToken[] | undefined;
  make: (client: BrokerClient, ...args: unknown[]) => Made | Promise<Made>;
}

function registrationsModule(
  all: readonly Named<RegisteredQueue | RegisteredTopic>[],
  imports: DynamicModule['imports'] = [],
): DynamicModule {
  const providers = all.map(({ what, name, connection = DEFAULT_CONNECTION, token: own, inject = [], make }) => {
    const token = connection === DEFAULT_CONNECTION ? BrokerClient : getClientToken(connection);
    return {
      provide: own ?? getQueueToken(name, connection),
      inject: [{ token, optional: true }, ...inject],
      useFactory: async (client: BrokerClient | undefined, ...args: unknown[]) =>
        make(clientFor(`${what ?? 'Queue'} '${name}'`, connection, client), ...args),
    };
  });
  return { module: RowmqRegistrationsModule, imports, providers, exports: providers };
}
