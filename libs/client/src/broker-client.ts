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
  /** Gives the call up. For a dequeue the connection is dropped, so the broker gives back what it claimed for it, unless its answer was on its way. */
  signal?: AbortSignal | undefined;
  /** Takes the place of the client's own `timeoutMs` where it is sooner. */
  timeoutMs?: number | undefined;
}

/**
 * What producers and consumers need of a broker: the verbs of the REST contract. `RowmqHttpClient` has them over HTTP, `InMemoryBroker` for tests.
 *
 * Each throws `RowmqError` when it is refused, and may throw `BrokerUnreachableError` when nobody answers.
 */
export abstract class BrokerClient {
  /** Stores 1 to 100 messages, all or none. Answers their ids, in order, once they are durable. */
  abstract enqueue(queue: string, request: EnqueueRequest, options?: CallOptions): Promise<EnqueueAnswer>;
  /** Leases up to `maxMessages`, waiting up to `waitSeconds` for the first; may answer none. */
  abstract dequeue(queue: string, request?: DequeueRequest, options?: CallOptions): Promise<DequeueAnswer>;
  /** Settles leased messages; answers each receipt as acked or failed. */
  abstract ack(queue: string, request: AckRequest, options?: CallOptions): Promise<AckAnswer>;
  /** Gives leased messages back, now or after `delaySeconds`, or dead-letters them; answers each receipt as nacked or failed. */
  abstract nack(queue: string, request: NackRequest, options?: CallOptions): Promise<NackAnswer>;
  /** Moves the deadlines of leases to `leaseSeconds` from now; answers each receipt as extended or failed. */
  abstract extend(queue: string, request: ExtendRequest, options?: CallOptions): Promise<ExtendAnswer>;
  /** Creates the queue, or changes the settings that are named. */
  abstract putQueue(queue: string, settings?: PutQueueRequest, options?: CallOptions): Promise<unknown>;
  /** Ends what is under way. Idempotent. */
  abstract close(): Promise<void>;
}
