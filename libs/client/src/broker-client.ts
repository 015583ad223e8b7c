import type {
  AckAnswer,
  AckRequest,
  DequeueAnswer,
  DequeueRequest,
  EnqueueAnswer,
  EnqueueRequest,
  ExtendAnswer,
  ExtendRequest,
  NackAnswer,
  NackRequest,
  PutQueueRequest,
} from '@rowmq/contract';

export interface CallOptions {
  /**
   * Cancels the call. A dequeue drops its connection: the broker releases what it claimed for it,
   * unless the answer was already on its way. Acks that it carried may have been settled.
   */
  signal?: AbortSignal | undefined;
  /** Replaces the client's `timeoutMs` if it is shorter. */
  timeoutMs?: number | undefined;
}

/**
 * The verbs of the REST contract, for producers and consumers. `RowmqHttpClient` has them over
 * HTTP, and `InMemoryBroker` has them for tests.
 *
 * Each throws `RowmqError` if the broker refuses, and may throw `BrokerUnreachableError` if no
 * broker answers.
 */
export abstract class BrokerClient {
  /** Stores 1 to 100 messages, all or none. Answers their ids, in order, once they are durable. */
  abstract enqueue(queue: string, request: EnqueueRequest, options?: CallOptions): Promise<EnqueueAnswer>;
  /**
   * Leases up to `maxMessages` and waits up to `waitSeconds` for the first. It may answer none.
   * Settles the receipts in `ack` first, and then answers each as acked or failed.
   */
  abstract dequeue(queue: string, request?: DequeueRequest, options?: CallOptions): Promise<DequeueAnswer>;
  /** Settles leased messages. Answers each receipt as acked or failed. */
  abstract ack(queue: string, request: AckRequest, options?: CallOptions): Promise<AckAnswer>;
  /**
   * Makes leased messages ready again, now or after `delaySeconds`, or dead-letters them. Answers
   * each receipt as nacked or failed.
   */
  abstract nack(queue: string, request: NackRequest, options?: CallOptions): Promise<NackAnswer>;
  /**
   * Moves the deadlines of leases to `leaseSeconds` from now. Answers each receipt as extended or
   * failed.
   */
  abstract extend(queue: string, request: ExtendRequest, options?: CallOptions): Promise<ExtendAnswer>;
  /** Creates the queue, or changes the settings that are given. */
  abstract putQueue(queue: string, settings?: PutQueueRequest, options?: CallOptions): Promise<unknown>;
  /** Ends the calls in flight. Idempotent. */
  abstract close(): Promise<void>;
}
