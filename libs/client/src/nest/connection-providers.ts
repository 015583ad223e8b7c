import type { InjectionToken, Provider } from '@nestjs/common';
import { BrokerClient } from '../broker-client.js';
import { RowmqConnection } from './connection.js';
import { DEFAULT_CONNECTION } from './tokens.js';

/** The providers of a connection beside its client, which has this token. */
export function connectionProviders(name: string, token: InjectionToken): Provider[] {
  const connection = {
    provide: RowmqConnection,
    inject: [token],
    useFactory: (client: BrokerClient) => new RowmqConnection(name, client),
  };
  if (name !== DEFAULT_CONNECTION) return [connection];
  return [connection, { provide: BrokerClient, useExisting: token }];
}
