import { Inject, Injectable } from '@nestjs/common';
import {
  type EnqueueOutcome,
  type EnqueueRequest,
  MessageRepository,
  type ReceiptOutcomes,
  type ReceiptsRequest,
  type ReleaseRequest,
} from '@rowmq/store';
import { BROKER_CONFIG } from '../broker.config.js';
import { Metrics } from '../metrics/metrics.js';
import { type BatchConfig, batchLimits } from './batch-limits.js';
import { Batcher, type BatcherLimits, type BatcherOptions } from './batcher.js';
import { WaitingConsumers } from './waiting-consumers.js';

type NackRequest = ReceiptsRequest & { delaySeconds: number; reason?: string | undefined };
type RejectRequest = ReceiptsRequest & { reason?: string | undefined };
type ExtendRequest = ReceiptsRequest & { leaseSeconds: number };

/**
 * Group commit of every verb but dequeue and reject: many requests share one transaction. The
 * consumers of a queue share a claim instead (`WaitingConsumers`).
 */
@Injectable()
export class Commits {
  private readonly enqueues: Batcher<EnqueueRequest, Buffer[]>;
  private readonly acks: Batcher<ReceiptsRequest, ReceiptOutcomes>;
  private readonly nacks: Batcher<NackRequest, ReceiptOutcomes>;
  private readonly rejects: Batcher<RejectRequest, ReceiptOutcomes>;
  private readonly releases: Batcher<ReleaseRequest, ReceiptOutcomes>;
  private readonly extends: Batcher<ExtendRequest, { outcomes: ReceiptOutcomes; leaseExpiresAt: number }>;

  constructor(
    private readonly messages: MessageRepository,
    private readonly consumers: WaitingConsumers,
    private readonly metrics: Metrics,
    @Inject(BROKER_CONFIG) private readonly config: BatchConfig,
  ) {
    this.enqueues = this.batcher<EnqueueRequest, Buffer[]>('enqueue', {
      commit: (requests) => this.store(requests),
      weigh: ({ messages: sent }) => ({
        rows: sent.length,
        bytes: sent.reduce((sum, { body, headers }) => sum + body.length + (headers?.length ?? 0), 0),
      }),
    });
    const weigh = ({ receipts }: ReceiptsRequest) => ({ rows: receipts.length, bytes: 0 });
    this.acks = this.batcher('ack', { commit: (requests) => messages.ack(requests), weigh });
    this.nacks = this.batcher<NackRequest, ReceiptOutcomes>('nack', {
      commit: (requests) => messages.nack(requests),
      weigh,
    });
    // They are rare, and each has a transaction of its own.
    this.rejects = this.batcher<RejectRequest, ReceiptOutcomes>('reject', {
      commit: async (requests) => Promise.all(requests.map(async (request) => messages.reject(request))),
      weigh,
      limits: { ...batchLimits(config), requests: 1 },
    });
    this.releases = this.batcher<ReleaseRequest, ReceiptOutcomes>('release', {
      commit: (requests) => messages.release(requests),
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
  async enqueue(request: EnqueueRequest): Promise<Buffer[]> {
    return this.enqueues.submit(request.queueName, request);
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

  async release(request: ReleaseRequest): Promise<ReceiptOutcomes> {
    return this.releases.submit(String(request.queueId), request);
  }

  async extend(request: ExtendRequest): Promise<{ outcomes: ReceiptOutcomes; leaseExpiresAt: number }> {
    return this.extends.submit(String(request.queueId), request);
  }

  /** Stores messages, hands them off to parked consumers, and wakes consumers for the others. */
  private async store(requests: readonly EnqueueRequest[]): Promise<EnqueueOutcome[]> {
    /** By queue. A batch that is tried again offers its messages again. */
    const available = new Map<string, number>();
    const handedOff = new Map<string, number>();
    const outcomes = await this.messages.enqueue(requests, {
      reserve: (queue, messages) => {
        available.set(queue.name, messages);
        return this.consumers.reserve(queue, messages).map((reservation) => ({
          ...reservation,
          handOff: (leased) => {
            handedOff.set(queue.name, (handedOff.get(queue.name) ?? 0) + leased.length);
            reservation.handOff(leased);
          },
        }));
      },
    });
    const stored = requests.filter((_, index) => !(outcomes[index] instanceof Error));
    for (const queueName of new Set(stored.map((request) => request.queueName))) {
      const left = (available.get(queueName) ?? 0) - (handedOff.get(queueName) ?? 0);
      if (left > 0) this.consumers.wake(queueName, left);
    }
    return outcomes;
  }

  private batcher<Request, Answer>(
    verb: string,
    options: Pick<BatcherOptions<Request, Answer>, 'commit' | 'weigh'> & { limits?: BatcherLimits },
  ): Batcher<Request, Answer> {
    const batcher = new Batcher({
      limits: batchLimits(this.config),
      ...options,
      onBatch: (batch) => this.metrics.observeBatch(verb, batch),
    });
    this.metrics.addBatcher(verb, batcher);
    return batcher;
  }
}
