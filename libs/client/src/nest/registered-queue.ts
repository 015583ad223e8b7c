import type { PutQueueRequest } from '@rowmq/contract';
import type { PayloadOptions } from '../queue/payload-codec.js';
import { Queue } from '../queue/queue.js';
import type { BrokerClient } from '../broker-client.js';

/** A queue that a module uses. */
export interface QueueRegistration<In = unknown, Out = In> extends PayloadOptions<In, Out> {
  /** 1 to 80 of the characters A-Z a-z 0-9 . _ - */
  name: string;
  /** `true` creates the queue at boot if there is none; settings are given to it at every boot, whether it was there or not. Needs an API key that may. Default: a queue that does not exist is a fault. */
  create?: boolean | PutQueueRequest | undefined;
}

/** A queue as it was registered. */
export class RegisteredQueue<In = unknown, Out = In> extends Queue<In, Out> {
  constructor(
    client: BrokerClient,
    readonly registration: QueueRegistration<In, Out>,
  ) {
    super(client, registration.name, registration);
  }
}
