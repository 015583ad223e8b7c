import { Inject, Injectable } from '@nestjs/common';
import {
  type EnqueuedMessage,
  type EnqueueOutcome,
  type EnqueueRequest,
  MessageRepository,
  type NackRequest,
  QueueRepository,
  type ReceiptOutcomes,
  type ReceiptsRequest,
  type ReleaseRequest,
  type Reserve,
} from '@rowmq/store';
import { BROKER_CONFIG } from '../broker.config.js';
import { Metrics } from '../metrics/metrics.js';
import { Pressure } from '../metrics/pressure.js';
import { type BatchConfig, batchLimits } from './batch-limits.js';
import { Batcher, type BatcherLimits, type BatcherOptions } from './batcher.js';
import { hasGroups, type Lane, laneOf } from './lane.js';
import { Offer } from './offer.js';
import { WaitingConsumers } from './waiting-consumers.js';

type RejectRequest = ReceiptsRequest & { reason?: string | undefined };
type ExtendRequest = ReceiptsRequest & { leaseSeconds: number };

/**
 * Group commit of every verb but dequeue and reject: many requests share one transaction.
 * `WaitingConsumers` does the same for dequeues.
 */
@Injectable()
export class Commits {
  private readonly enqueues: Record<Lane, Batcher<EnqueueRequest, EnqueuedMessage[]>>;
  private readonly acks: Batcher<ReceiptsRequest, ReceiptOutcomes>;
  private readonly orderedAcks: Batcher<ReceiptsRequest, ReceiptOutcomes>;
  private readonly nacks: Batcher<NackRequest, ReceiptOutcomes>;
  private readonly rejects: Batcher<RejectRequest, ReceiptOutcomes>;
  private readonly releases: Batcher<ReleaseRequest, ReceiptOutcomes>;
  private readonly extends: Batcher<ExtendRequest, { outcomes: ReceiptOutcomes; leaseExpiresAt: number }>;

  constructor(
    messages: MessageRepository,
    private readonly queues: QueueRepository,
    private readonly consumers: WaitingConsumers,
    private readonly metrics: Metrics,
    @Inject(BROKER_CONFIG) private readonly config: BatchConfig,
    private readonly pressure: Pressure,
  ) {
    const lane = (verb: string, commit: (requests: readonly EnqueueRequest[]) => Promise<EnqueueOutcome[]>) =>
      this.batcher<EnqueueRequest, EnqueuedMessage[]>(verb, {
        commit,
        weigh: ({ messages: sent }) => ({
          rows: sent.length,
          bytes: sent.reduce((sum, { body, headers }) => sum + body.length + (headers?.length ?? 0), 0),
        }),
      });
    const store = async (requests: readonly EnqueueRequest[]) =>
      this.store(requests, (options) => messages.enqueue(requests, options));
    this.enqueues = {
      plain: lane('enqueue', store),
      withKey: lane('enqueue-with-key', store),
      withIds: lane('enqueue-with-ids', store),
      withGroups: lane('enqueue-with-groups', store),
      inOrder: lane('enqueue-in-order', async (requests) =>
        this.store(requests, (options) => messages.enqueueInOrder(requests, options)),
      ),
    };
    const weigh = ({ receipts }: ReceiptsRequest) => ({ rows: receipts.length, bytes: 0 });
    this.acks = this.batcher('ack', { commit: (requests) => messages.ack(requests), weigh });
    this.orderedAcks = this.batcher('ack-in-order', { commit: (requests) => messages.ackInOrder(requests), weigh });
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
   * Throws `queue-not-found`, `queue-full`, `invalid-request`, `idempotency-key-reused`,
   * `enqueue-in-progress`, `overloaded`, `database-unavailable`.
   */
  async enqueue(request: EnqueueRequest, caller?: string): Promise<EnqueuedMessage[]> {
    const lane = hasGroups(request) ? await this.laneOfGroups(request) : laneOf(request);
    return this.enqueues[lane].submit(request.queueName, request, caller);
  }

  /** Throws `overloaded`, `database-unavailable`, as the following verbs do. */
  async ack(request: ReceiptsRequest): Promise<ReceiptOutcomes> {
    return this.acks.submit(String(request.queueId), request);
  }

  /** {@link ack} in an ordered queue. */
  async ackInOrder(request: ReceiptsRequest): Promise<ReceiptOutcomes> {
    return this.orderedAcks.submit(String(request.queueId), request);
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

  private async laneOfGroups({ queueName }: EnqueueRequest): Promise<Lane> {
    return (await this.queues.get(queueName)).ordering === null ? 'withGroups' : 'inOrder';
  }

  /** Stores messages, hands them off to parked consumers, and wakes consumers for the others. */
  private async store(
    requests: readonly EnqueueRequest[],
    enqueue: (options: { reserve: Reserve }) => Promise<EnqueueOutcome[]>,
  ): Promise<EnqueueOutcome[]> {
    const offer = new Offer(this.consumers);
    const outcomes = await enqueue({ reserve: (queue, messages) => offer.reserve(queue, messages) });
    const answered = new Set<string>();
    for (const [index, { queueName }] of requests.entries()) {
      const outcome = outcomes[index];
      if (outcome === undefined || outcome instanceof Error) continue;
      answered.add(queueName);
      const duplicates = outcome.filter(({ duplicate }) => duplicate).length;
      this.metrics.count('duplicate', queueName, duplicates);
      this.metrics.count('enqueued', queueName, outcome.length - duplicates);
    }
    offer.wakeOthers(answered);
    return outcomes;
  }

  private batcher<Request, Answer>(
    verb: string,
    options: Pick<BatcherOptions<Request, Answer>, 'commit' | 'weigh'> & { limits?: BatcherLimits },
  ): Batcher<Request, Answer> {
    const batcher = new Batcher({
      limits: batchLimits(this.config),
      ...options,
      onBegin: () => this.pressure.begin(),
      onBatch: (batch) => this.metrics.observeBatch(verb, batch),
    });
    this.metrics.addBatcher(verb, batcher);
    return batcher;
  }
}
