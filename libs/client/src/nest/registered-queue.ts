import type { PayloadOptions } from '../queue/payload-codec.js';
import { Queue } from '../queue/queue.js';
import type { BrokerClient } from '../broker-client.js';
import type { NeededQueue } from './queue-check.js';

/** A queue that a module uses. */
export interface QueueRegistration<In = unknown, Out = In> extends PayloadOptions<In, Out>, NeededQueue {}

/** A queue as it was registered. */
export class RegisteredQueue<In = unknown, Out = In> extends Queue<In, Out> {
  constructor(
    client: BrokerClient,
    readonly registration: QueueRegistration<In, Out>,
  ) {
    super(client, registration.name, registration);
  }
}
