import type { BrokerClient } from '../broker-client.js';
import type { PayloadOptions } from '@rowmq/contract/producer';
import { Topic } from '../topic/topic.js';
import type { NeededTopic } from './queue-check.js';
import { DEFAULT_CONNECTION } from './tokens.js';

/** A topic that a module publishes to. */
export interface TopicRegistration<In = unknown> extends PayloadOptions<In, unknown>, NeededTopic {
  /** The name of the connection whose broker has the topic. Default: the unnamed one. */
  connection?: string | undefined;
}

/** A topic as it was registered. */
export class RegisteredTopic<In = unknown> extends Topic<In> {
  readonly connection: string;

  constructor(
    client: BrokerClient,
    readonly registration: TopicRegistration<In>,
  ) {
    super(client, registration.name, registration);
    this.connection = registration.connection ?? DEFAULT_CONNECTION;
  }
}
