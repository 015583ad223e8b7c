import type { PayloadOptions } from '@rowmq/contract/producer';
import { Queue } from '../queue/queue.js';
import type { BrokerClient } from '../broker-client.js';
import type { NeededQueue } from './queue-check.js';
import { DEFAULT_CONNECTION } from './tokens.js';

/** A queue that a module uses. */
export interface QueueRegistration<In = unknown, Out = In> extends PayloadOptions<In, Out>, NeededQueue {
  /** The name of the connection whose broker has the queue. Default: the unnamed one. */
  connection?: string | undefined;
}

/** A queue as it was registered. */
export class RegisteredQueue<In = unknown, Out = In> extends Queue<In, Out> {
  readonly connection: string;
  readonly registration: QueueRegistration<In, Out>;

  constructor(
    client: BrokerClient,
    registration: QueueRegistration<In, Out>,
    /** Its name in `@InjectQueue` and `@Consumer`. It differs if the queue's name is configured. */
    readonly alias = registration.name,
  ) {
    // A copy, which the codec reads at each call.
    const own = { ...registration };
    super(client, registration.name, own);
    this.registration = own;
    this.connection = registration.connection ?? DEFAULT_CONNECTION;
  }

  /** Takes over what another registration of the queue says, if this one does not. */
  inherit({ format, schema, subscribeTo }: Partial<QueueRegistration<In, Out>>): void {
    this.registration.format ??= format;
    this.registration.schema ??= schema;
    this.registration.subscribeTo ??= subscribeTo;
  }
}
