import type {
  AuditAnswer,
  AuditQuery,
  AckAnswer,
  AckRequest,
  BrowseAnswer,
  BrowseQuery,
  CreateKeyRequest,
  ConsumersAnswer,
  DequeueAnswer,
  DequeueRequest,
  DropRequest,
  EnqueueAnswer,
  EnqueueRequest,
  ExtendAnswer,
  ExtendRequest,
  KeyAnswer,
  KeyLimitsRequest,
  KeysAnswer,
  KeysQuery,
  HistoryAnswer,
  HistoryQuery,
  JobAnswer,
  JobQuery,
  JobsAnswer,
  JobsQuery,
  MessageAnswer,
  MoveMessageRequest,
  OneMessageRequest,
  NackAnswer,
  NackRequest,
  NewKeyAnswer,
  PauseAnswer,
  PauseSide,
  PublishAnswer,
  PublishRequest,
  PutQueueRequest,
  PutScheduleRequest,
  PutSubscriptionRequest,
  PutTopicRequest,
  QueueAnswer,
  QueuesAnswer,
  ReaperAnswer,
  RedriveRequest,
  ReleaseAnswer,
  ReleaseRequest,
  ReplayAnswer,
  ReplayRequest,
  RotateKeyRequest,
  RunScheduleAnswer,
  ScheduleAnswer,
  SchedulesAnswer,
  SchedulesQuery,
  SubscriptionAnswer,
  TopicAnswer,
  TopicsAnswer,
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

export interface EnqueueCallOptions extends CallOptions {
  /**
   * Names the request: a repeat with the same key stores nothing, and gets the first answer. 1 to
   * 128 visible ASCII characters. `RowmqHttpClient` makes one for each call without.
   */
  idempotencyKey?: string | undefined;
}

export interface DeleteQueueOptions extends CallOptions {
  /** Deletes the queue with its messages. Without it, a queue with messages is kept. */
  force?: boolean | undefined;
}

/**
 * The calls of the REST contract. `RowmqHttpClient` makes them over HTTP, and `InMemoryBroker`
 * answers them in tests.
 *
 * Each throws `RowmqError` if the broker refuses, and may throw `BrokerUnreachableError` if no
 * broker answers.
 */
export abstract class BrokerClient {
  /**
   * Stores 1 to 100 messages, all or none. Answers their ids, in order, once they are durable. The
   * answer to a duplicate is the id of the first message, with `duplicate: true`.
   */
  abstract enqueue(queue: string, request: EnqueueRequest, options?: EnqueueCallOptions): Promise<EnqueueAnswer>;
  /**
   * Leases up to `maxMessages` and waits up to `waitSeconds` for the first. It may answer none.
   * Settles the receipts in `ack`, and answers each as acked or failed.
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
  /**
   * The same, and returns whether the call created it. If the answer to an earlier try was lost, a
   * queue that exists counts as its own.
   */
  abstract createNewQueue(queue: string, settings?: PutQueueRequest, options?: CallOptions): Promise<boolean>;
  /** Creates the queue, or changes the settings that are given. */
  abstract putQueue(queue: string, settings?: PutQueueRequest, options?: CallOptions): Promise<QueueAnswer>;
  /** A queue's settings and stats. */
  abstract getQueue(queue: string, options?: CallOptions): Promise<QueueAnswer>;
  /** Every queue with its settings and stats. */
  abstract listQueues(options?: CallOptions): Promise<QueuesAnswer>;
  /** Deletes the queue. Throws `queue-not-empty` if it has messages, unless `force` is set. */
  abstract deleteQueue(queue: string, options?: DeleteQueueOptions): Promise<void>;
  /**
   * Pauses consumers, who then get nothing, or producers, who then get `queue-paused`, or both.
   * Default: consumers.
   */
  abstract pauseQueue(queue: string, request?: { side?: PauseSide }, options?: CallOptions): Promise<PauseAnswer>;
  /** Ends the pause of both sides, or of one. */
  abstract resumeQueue(queue: string, request?: { side?: PauseSide }, options?: CallOptions): Promise<PauseAnswer>;
  /** The last minutes of a queue, up to a day: what happened in each, and how deep it was. */
  abstract getHistory(queue: string, query?: Partial<HistoryQuery>, options?: CallOptions): Promise<HistoryAnswer>;
  /** The consumers of a queue, through any broker. */
  abstract getConsumers(queue: string, options?: CallOptions): Promise<ConsumersAnswer>;
  /** Begins a job that settles every message that is in the queue now, leased ones included. */
  abstract purge(queue: string, options?: CallOptions): Promise<JobAnswer>;
  /**
   * Begins a job that moves messages of a queue back to the queues that they left first, or to
   * another one.
   */
  abstract redrive(queue: string, request?: RedriveRequest, options?: CallOptions): Promise<JobAnswer>;
  /** Begins a job that settles messages that no consumer holds. */
  abstract drop(queue: string, request?: DropRequest, options?: CallOptions): Promise<JobAnswer>;
  /** A page of jobs, newest first. */
  abstract listJobs(query?: Partial<JobsQuery>, options?: CallOptions): Promise<JobsAnswer>;
  /** Cancels a job: it handles nothing more after the answer. A finished job stays as it is. */
  abstract cancelJob(id: string, options?: CallOptions): Promise<JobAnswer>;
  /** A job and its progress. Waits up to `waitSeconds` for its end. */
  abstract getJob(id: string, query?: Partial<JobQuery>, options?: CallOptions): Promise<JobAnswer>;
  /**
   * Enqueues settled messages of a time range again, as long as they are stored. `complete: false`
   * asks for another call with the answer's cursor. A call without an answer may have replayed
   * messages, and a repeat replays those again.
   */
  abstract replay(queue: string, request: ReplayRequest, options?: CallOptions): Promise<ReplayAnswer>;
  /** One page of a queue's messages in one state, without leasing them. */
  abstract browse(queue: string, query?: Partial<BrowseQuery>, options?: CallOptions): Promise<BrowseAnswer>;
  /** A message and each of its deliveries, or that it is settled. */
  abstract getMessage(id: string, options?: CallOptions): Promise<MessageAnswer>;
  /**
   * Settles a message that is ready or delayed, so that it is never handed out. Throws
   * `delivery-not-found`, and `message-leased` if a consumer holds it.
   */
  abstract cancelMessage(id: string, options?: CallOptions): Promise<void>;

  /**
   * Settles a message for an operator, in the queue that is named or in every queue that owes it.
   * If a consumer holds it, its receipt has no effect any more.
   */
  abstract ackMessage(id: string, request?: OneMessageRequest, options?: CallOptions): Promise<void>;
  /** Makes a message ready that is leased or delayed. Its lease does not count as a receive. */
  abstract releaseMessage(id: string, request?: OneMessageRequest, options?: CallOptions): Promise<void>;
  /** Moves a message back to the queue that it left first. */
  abstract redriveMessage(id: string, request?: OneMessageRequest, options?: CallOptions): Promise<void>;
  /** Moves a message to another queue. */
  abstract moveMessage(id: string, request: MoveMessageRequest, options?: CallOptions): Promise<void>;

  /** Creates the schedule, or replaces its definition. The next tick stays if its times do. */
  abstract putSchedule(schedule: string, request: PutScheduleRequest, options?: CallOptions): Promise<ScheduleAnswer>;
  /** A schedule with its next and last run. */
  abstract getSchedule(schedule: string, options?: CallOptions): Promise<ScheduleAnswer>;
  /** A page of schedules by name, with their next and last runs. */
  abstract listSchedules(query?: Partial<SchedulesQuery>, options?: CallOptions): Promise<SchedulesAnswer>;
  /** Deletes the schedule. Messages that it enqueued stay. */
  abstract deleteSchedule(schedule: string, options?: CallOptions): Promise<void>;
  /** Enqueues the schedule's message now. Its ticks stay as they are. */
  abstract runSchedule(schedule: string, options?: CallOptions): Promise<RunScheduleAnswer>;

  /**
   * Stores 1 to 100 messages of a topic, all or none, for every queue whose subscription matches.
   * Answers each message's id and its number of queues once they are durable. The answer to a
   * duplicate is that of the first message, with `duplicate: true`.
   */
  abstract publish(topic: string, request: PublishRequest, options?: EnqueueCallOptions): Promise<PublishAnswer>;
  /** Creates the topic, or changes the settings that are given. */
  abstract putTopic(topic: string, settings?: PutTopicRequest, options?: CallOptions): Promise<TopicAnswer>;
  /** A topic and its subscriptions. */
  abstract getTopic(topic: string, options?: CallOptions): Promise<TopicAnswer>;
  /** Every topic with its subscriptions. */
  abstract listTopics(options?: CallOptions): Promise<TopicsAnswer>;
  /** Deletes the topic and its subscriptions. Their queues keep its messages. */
  abstract deleteTopic(topic: string, options?: CallOptions): Promise<void>;
  /** Subscribes the queue to the topic, or changes its subscription's filter if one is given. */
  abstract putSubscription(
    topic: string,
    queue: string,
    request?: PutSubscriptionRequest,
    options?: CallOptions,
  ): Promise<SubscriptionAnswer>;
  /** A queue's subscription to a topic. */
  abstract getSubscription(topic: string, queue: string, options?: CallOptions): Promise<SubscriptionAnswer>;
  /** Ends the subscription. The queue keeps the topic's messages. */
  abstract deleteSubscription(topic: string, queue: string, options?: CallOptions): Promise<void>;

  /** Creates an API key. No later call can show its secret. Throws `key-exists`. */
  abstract createKey(request: CreateKeyRequest, options?: CallOptions): Promise<NewKeyAnswer>;
  /** A page of API keys by name. */
  abstract listKeys(query?: Partial<KeysQuery>, options?: CallOptions): Promise<KeysAnswer>;
  /** An API key without its secret. */
  abstract getKey(key: string, options?: CallOptions): Promise<KeyAnswer>;
  /** Gives the API key a new secret. The old one stays valid for a time, a day by default. */
  abstract rotateKey(key: string, request?: RotateKeyRequest, options?: CallOptions): Promise<NewKeyAnswer>;
  /** Changes the limits that are given. Null takes the broker's setting. Throws `key-not-found`. */
  abstract putKeyLimits(key: string, limits: KeyLimitsRequest, options?: CallOptions): Promise<KeyAnswer>;
  /** Revokes the API key for good. Every broker refuses it within three seconds. */
  abstract revokeKey(key: string, options?: CallOptions): Promise<void>;

  /** A page of the actions of administrators, the latest first. */
  abstract listAudit(query?: Partial<AuditQuery>, options?: CallOptions): Promise<AuditAnswer>;

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
