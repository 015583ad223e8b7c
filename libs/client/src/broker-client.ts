import type {
  AckAnswer,
  AckRequest,
  BrowseAnswer,
  BrowseQuery,
  DequeueAnswer,
  DequeueRequest,
  EnqueueAnswer,
  EnqueueRequest,
  ExtendAnswer,
  ExtendRequest,
  MessageAnswer,
  NackAnswer,
  NackRequest,
  PauseAnswer,
  PurgeAnswer,
  PutQueueRequest,
  QueueAnswer,
  QueuesAnswer,
  ReaperAnswer,
  RedriveAnswer,
  RedriveRequest,
  ReleaseAnswer,
  ReleaseRequest,
} from '@rowmq/contract';

export interface CallOptions {
  /**
   * Cancels the call. A dequeue drops its connection: the broker releases what it claimed for it,
   * unless the answer was already on its way. Acks that it carried may have been settled.
   */
  signal?: AbortSignal | undefined;
  /** Replaces the client's `timeoutMs` if it is shorter. */
  timeoutMs?: number | undefined;
  /** Replaces the client's `retrySeconds` if it is shorter. 0: the call is sent once. */
  retrySeconds?: number | undefined;
}

/**
 * The calls of the REST contract. `RowmqHttpClient` makes them over HTTP, and `InMemoryBroker`
 * answers them in tests.
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
   * Undoes leases of messages that nobody began to handle: they are ready again, now or after
   * `delaySeconds`, and the receive does not count. Answers each receipt as released or failed.
   */
  abstract release(queue: string, request: ReleaseRequest, options?: CallOptions): Promise<ReleaseAnswer>;
  /**
   * Moves the deadlines of leases to `leaseSeconds` from now. Answers each receipt as extended or
   * failed.
   */
  abstract extend(queue: string, request: ExtendRequest, options?: CallOptions): Promise<ExtendAnswer>;
  /** Settles one leased message. Throws `lease-lost`, `delivery-not-found`. */
  abstract ackOne(queue: string, receipt: string, options?: CallOptions): Promise<void>;

  /** Creates the queue if it is missing, and changes nothing if it exists. */
  abstract createQueue(queue: string, settings?: PutQueueRequest, options?: CallOptions): Promise<void>;
  /** Creates the queue, or changes the settings that are given. */
  abstract putQueue(queue: string, settings?: PutQueueRequest, options?: CallOptions): Promise<QueueAnswer>;
  /** A queue's settings and stats. */
  abstract getQueue(queue: string, options?: CallOptions): Promise<QueueAnswer>;
  /** Every queue with its settings and stats. */
  abstract listQueues(options?: CallOptions): Promise<QueuesAnswer>;
  /** Deletes the queue and every delivery in it. */
  abstract deleteQueue(queue: string, options?: CallOptions): Promise<void>;
  /** Stops the hand-out of a queue's messages to all consumers. */
  abstract pauseQueue(queue: string, options?: CallOptions): Promise<PauseAnswer>;
  /** Resumes the hand-out of a queue's messages. */
  abstract resumeQueue(queue: string, options?: CallOptions): Promise<PauseAnswer>;
  /** Drops every delivery of the queue; `complete: false` asks for another call. */
  abstract purge(queue: string, options?: CallOptions): Promise<PurgeAnswer>;
  /**
   * Moves the deliveries of a dead-letter queue back to the queues that they were enqueued in;
   * `complete: false` asks for another call.
   */
  abstract redrive(queue: string, request?: RedriveRequest, options?: CallOptions): Promise<RedriveAnswer>;
  /** One page of a queue's messages in one state, without leasing them. */
  abstract browse(queue: string, query?: Partial<BrowseQuery>, options?: CallOptions): Promise<BrowseAnswer>;
  /** A message and each of its deliveries, or that it is settled. */
  abstract getMessage(id: string, options?: CallOptions): Promise<MessageAnswer>;

  /** The reaper that works now, and the last runs of its duties. */
  abstract getReaper(options?: CallOptions): Promise<ReaperAnswer>;
  /** Throws unless the broker is up and reaches its database. */
  abstract ready(options?: CallOptions): Promise<void>;
  /** Throws unless the broker is up. */
  abstract live(options?: CallOptions): Promise<void>;
  /** The broker's metrics in the text format of Prometheus. */
  abstract metrics(options?: CallOptions): Promise<string>;
  /** Ends the calls in flight. Idempotent. */
  abstract close(): Promise<void>;
}
