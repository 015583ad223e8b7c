import { Inject, Injectable } from '@nestjs/common';
import { newMessageId } from '@rowmq/contract';
import {
  BoundedQueueError,
  type EnqueueRequest,
  MessageRepository,
  type NewMessage,
  QueueRepository,
  type ReceiptOutcomes,
  type ReceiptsRequest,
} from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { Metrics } from '../metrics/metrics.js';
import { Batcher, type BatcherLimits, type BatcherOptions } from './batcher.js';

/**
 * Rows of one batch. A batch up to this size is cheaper per row. A larger one only holds its locks
 * for longer.
 */
export const BATCH_ROWS = 1000;
/**
 * Bodies and headers of one batch. As SQL they take twice that, which fits the smallest default of
 * `max_allowed_packet` (16 MiB).
 */
const BATCH_BYTES = 4 * 1024 * 1024;
/** Bodies and headers that may wait for their batch. */
const WAITING_BYTES = 64 * 1024 * 1024;
/** The share of a broker's connections that the batches of one verb may take. */
const SHARE_OF_POOL = 1 / 4;

export type BatchConfig = Pick<BrokerConfig, 'poolSize' | 'batchRequests' | 'maxWaitingRequests'>;

/** The limits of every verb's batches. */
export function batchLimits(config: BatchConfig): BatcherLimits {
  return {
    requests: config.batchRequests,
    rows: BATCH_ROWS,
    bytes: BATCH_BYTES,
    // Two at least: a batch that waits for a lock must not stop the others.
    batches: Math.max(2, Math.floor(config.poolSize * SHARE_OF_POOL)),
    waitingRequests: config.maxWaitingRequests,
    waitingBytes: WAITING_BYTES,
  };
}

/** A message without an id. */
export type UnstampedMessage = Omit<NewMessage, 'id'> & { id: Buffer | undefined };
interface NewRequest {
  queueName: string;
  messages: readonly UnstampedMessage[];
}

/**
 * Gives messages their ids when their batch starts; retries keep them. Ids that were made on
 * arrival would interleave between batches and brokers, and InnoDB would split its pages in the
 * middle. A message of 200 bytes then takes 549 bytes instead of 270
 * (`docs/decisions/0009-storage.md`).
 */
function stamp({ queueName, messages }: NewRequest): EnqueueRequest {
  for (const message of messages) message.id ??= newMessageId();
  return { queueName, messages: messages as readonly NewMessage[] };
}

type NackRequest = ReceiptsRequest & { delaySeconds: number; reason?: string | undefined };
type RejectRequest = ReceiptsRequest & { reason?: string | undefined };
type ExtendRequest = ReceiptsRequest & { leaseSeconds: number };

/**
 * Group commit of every verb but dequeue: many requests share one transaction. The consumers of a
 * queue share a claim instead (`WaitingConsumers`).
 */
@Injectable()
export class Commits {
  private readonly enqueues: Batcher<NewRequest, Buffer[]>;
  /**
   * Enqueues into queues with a maximum depth. They lock the queue's row exclusively. Other
   * enqueues must not wait for them, and they must not take more than their share of the pool.
   */
  private readonly boundedEnqueues: Batcher<NewRequest, Buffer[]>;
  private readonly acks: Batcher<ReceiptsRequest, ReceiptOutcomes>;
  private readonly nacks: Batcher<NackRequest, ReceiptOutcomes>;
  private readonly rejects: Batcher<RejectRequest, ReceiptOutcomes>;
  private readonly extends: Batcher<ExtendRequest, { outcomes: ReceiptOutcomes; leaseExpiresAt: number }>;

  constructor(
    messages: MessageRepository,
    private readonly queues: QueueRepository,
    private readonly metrics: Metrics,
    @Inject(BROKER_CONFIG) private readonly config: BatchConfig,
  ) {
    const enqueue = (onlyUnbounded: boolean): Pick<BatcherOptions<NewRequest, Buffer[]>, 'commit' | 'weigh'> => ({
      commit: async (requests) => {
        const stamped = requests.map(stamp);
        const outcomes = await messages.enqueue(stamped, { onlyUnbounded });
        return outcomes.map((refusal, index) => refusal ?? (stamped[index]?.messages ?? []).map(({ id }) => id));
      },
      weigh: ({ messages: sent }) => ({
        rows: sent.length,
        bytes: sent.reduce((sum, { body, headers }) => sum + body.length + (headers?.length ?? 0), 0),
      }),
    });
    this.enqueues = this.batcher('enqueue', enqueue(true));
    this.boundedEnqueues = this.batcher('enqueue bounded', { ...enqueue(false), perQueue: true });
    const weigh = ({ receipts }: ReceiptsRequest) => ({ rows: receipts.length, bytes: 0 });
    this.acks = this.batcher('ack', { commit: (requests) => messages.ack(requests), weigh });
    this.nacks = this.batcher<NackRequest, ReceiptOutcomes>('nack', {
      commit: (requests) => messages.nack(requests),
      weigh,
    });
    // Each has a transaction of its own. They are rare, and run one after the other to spare the
    // pool.
    this.rejects = this.batcher<RejectRequest, ReceiptOutcomes>('reject', {
      commit: async (requests) => {
        const outcomes: (ReceiptOutcomes | Error)[] = [];
        for (const request of requests) outcomes.push(await messages.reject(request).catch((error: Error) => error));
        return outcomes;
      },
      weigh,
    });
    this.extends = this.batcher<ExtendRequest, { outcomes: ReceiptOutcomes; leaseExpiresAt: number }>('extend', {
      commit: (requests) => messages.extend(requests),
      weigh,
    });
  }

  /**
   * Returns the messages' ids. Throws `queue-not-found`, `queue-full`, `invalid-request`,
   * `overloaded`, `database-unavailable`.
   */
  async enqueue(request: NewRequest): Promise<Buffer[]> {
    const { queueName } = request;
    if (!this.queues.isBounded(queueName)) {
      try {
        return await this.enqueues.submit(queueName, request);
      } catch (error) {
        if (!(error instanceof BoundedQueueError)) throw error;
      }
    }
    return this.boundedEnqueues.submit(queueName, request);
  }

  /** Throws `overloaded`, `database-unavailable`, as the following verbs do. */
  async ack(request: ReceiptsRequest): Promise<ReceiptOutcomes> {
    return this.acks.submit(String(request.queueId), request);
  }

  async nack(request: NackRequest): Promise<ReceiptOutcomes> {
    return this.nacks.submit(String(request.queueId), request);
  }

  /** Also throws `invalid-request`, if the queue has no dead-letter queue. */
  async reject(request: RejectRequest): Promise<ReceiptOutcomes> {
    return this.rejects.submit(String(request.queueId), request);
  }

  async extend(request: ExtendRequest): Promise<{ outcomes: ReceiptOutcomes; leaseExpiresAt: number }> {
    return this.extends.submit(String(request.queueId), request);
  }

  private batcher<Request, Answer>(
    verb: string,
    options: Pick<BatcherOptions<Request, Answer>, 'commit' | 'weigh' | 'perQueue'>,
  ): Batcher<Request, Answer> {
    const batcher = new Batcher({
      ...options,
      limits: batchLimits(this.config),
      onBatch: (batch) => this.metrics.observeBatch(verb, batch),
    });
    this.metrics.addBatcher(verb, batcher);
    return batcher;
  }
}
