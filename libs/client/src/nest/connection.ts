import type { BrokerClient } from '../broker-client.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';
import { DEFAULT_CONNECTION } from './tokens.js';

/** A client, and the name by which queues and consumers refer to it. */
export class RowmqConnection {
  constructor(
    readonly name: string,
    readonly client: BrokerClient,
  ) {}
}

/**
 * The client that `registerQueue` or `registerTopic` needs. Nest's own message would not say what
 * is missing.
 */
export function clientFor(what: string, connection: string, client: BrokerClient | undefined): BrokerClient {
  if (client !== undefined) return client;
  throw new RowmqConfigurationError(
    connection === DEFAULT_CONNECTION
      ? `${what} is registered, but there is no connection: import RowmqModule.forRoot({ url }) in the root module.`
      : `${what} is registered on connection '${connection}', which does not exist: import RowmqModule.forRoot({ name: '${connection}', url }) in the root module.`,
  );
}
