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

/** Rows of one flight. Up to here a larger flight is cheaper per row; beyond it only the locks are held for longer. */
export const FLIGHT_ROWS = 1000;
/** Bodies and headers of one flight: twice that as SQL, which fits the smallest `max_allowed_packet` the servers come with (16 MiB). */
const FLIGHT_BYTES = 4 * 1024 * 1024;
/** Bodies and headers that may wait for their flight. */
const WAITING_BYTES = 64 * 1024 * 1024;
/** Of a broker's connections, those that the flights of one verb may take. */
const SHARE_OF_POOL = 1 / 4;

export type FlightConfig = Pick<BrokerConfig, 'poolSize' | 'flightRequests' | 'maxWaitingRequests'>;

/** The limits of every verb's flights. */
export function flightLimits(config: FlightConfig): BatcherLimits {
  return {
    requests: config.flightRequests,
    rows: FLIGHT_ROWS,
    bytes: FLIGHT_BYTES,
    // Two at least: beside one that waits for a lock, others must get past.
    flights: Math.max(2, Math.floor(config.poolSize * SHARE_OF_POOL)),
    waitingRequests: config.maxWaitingRequests,
    waitingBytes: WAITING_BYTES,
  };
}

/** A message that has no id yet. */
export type UnstampedMessage = Omit<NewMessage, 'id'> & { id: Buffer | undefined };
interface NewRequest {
  queueName: string;
  messages: readonly UnstampedMessage[];
}

/**
 * Gives messages their ids when their flight takes off, once and for all tries. Stamped when they arrived, the ids of flights and of brokers would interleave, and InnoDB split its pages in the middle: twice the space
 * (549 bytes instead of 270 for a message of 200; `docs/decisions/0009-storage.md`).
 */
function stamp({ queueName, messages }: NewRequest): EnqueueRequest {
  for (const message of messages) message.id ??= newMessageId();
  return { queueName, messages: messages as readonly NewMessage[] };
}

type NackRequest = ReceiptsRequest & { delaySeconds: number; reason?: string | undefined };
type RejectRequest = ReceiptsRequest & { reason?: string | undefined };
type ExtendRequest = ReceiptsRequest & { leaseSeconds: number };

/** What clients ask of messages, many requests to a transaction. Dequeue is not here: consumers of a queue share one claim, see `CombinedDemand`. */
@Injectable()
export class Flights {
  private readonly enqueues: Batcher<NewRequest, Buffer[]>;
  /** Of queues with a maximum depth, whose rows are locked exclusively: nobody else is to wait for those, and they are not to take more than their share of the pool. */
  private readonly boundedEnqueues: Batcher<NewRequest, Buffer[]>;
  private readonly acks: Batcher<ReceiptsRequest, ReceiptOutcomes>;
  private readonly nacks: Batcher<NackRequest, ReceiptOutcomes>;
  private readonly rejects: Batcher<RejectRequest, ReceiptOutcomes>;
  private readonly extends: Batcher<ExtendRequest, { outcomes: ReceiptOutcomes; leaseExpiresAt: number }>;

  constructor(
    messages: MessageRepository,
    private readonly queues: QueueRepository,
    private readonly metrics: Metrics,
    @Inject(BROKER_CONFIG) private readonly config: FlightConfig,
  ) {
    const enqueue = (isForUnbounded: boolean): Pick<BatcherOptions<NewRequest, Buffer[]>, 'fly' | 'weigh'> => ({
      fly: async (requests) => {
        const stamped = requests.map(stamp);
        const outcomes = await messages.enqueue(stamped, { isForUnbounded });
        return outcomes.map((refusal, index) => refusal ?? (stamped[index]?.messages ?? []).map(({ id }) => id));
      },
      weigh: ({ messages: sent }) => ({
        rows: sent.length,
        bytes: sent.reduce((sum, { body, headers }) => sum + body.length + (headers?.length ?? 0), 0),
      }),
    });
    this.enqueues = this.batcher('enqueue', enqueue(true));
    this.boundedEnqueues = this.batcher('enqueue bounded', { ...enqueue(false), lanesApart: true });
    const weigh = ({ receipts }: ReceiptsRequest) => ({ rows: receipts.length, bytes: 0 });
    this.acks = this.batcher('ack', { fly: (requests) => messages.ack(requests), weigh });
    this.nacks = this.batcher<NackRequest, ReceiptOutcomes>('nack', {
      fly: (requests) => messages.nack(requests),
      weigh,
    });
    // Rare, and each has a transaction of its own: one after the other, so that they do not take the pool.
    this.rejects = this.batcher<RejectRequest, ReceiptOutcomes>('reject', {
      fly: async (requests) => {
        const outcomes: (ReceiptOutcomes | Error)[] = [];
        for (const request of requests) outcomes.push(await messages.reject(request).catch((error: Error) => error));
        return outcomes;
      },
      weigh,
    });
    this.extends = this.batcher<ExtendRequest, { outcomes: ReceiptOutcomes; leaseExpiresAt: number }>('extend', {
      fly: (requests) => messages.extend(requests),
      weigh,
    });
  }

  /** Returns the messages' ids. Throws `queue-not-found`, `queue-full`, `invalid-request`, `overloaded`, `database-unavailable`. */
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

  /** Throws `overloaded`, `database-unavailable`. So do the others. */
  async ack(request: ReceiptsRequest): Promise<ReceiptOutcomes> {
    return this.acks.submit(String(request.queueId), request);
  }

  async nack(request: NackRequest): Promise<ReceiptOutcomes> {
    return this.nacks.submit(String(request.queueId), request);
  }

  /** Throws `invalid-request` as well, for a queue without a dead-letter queue. */
  async reject(request: RejectRequest): Promise<ReceiptOutcomes> {
    return this.rejects.submit(String(request.queueId), request);
  }

  async extend(request: ExtendRequest): Promise<{ outcomes: ReceiptOutcomes; leaseExpiresAt: number }> {
    return this.extends.submit(String(request.queueId), request);
  }

  private batcher<Request, Answer>(
    verb: string,
    options: Pick<BatcherOptions<Request, Answer>, 'fly' | 'weigh' | 'lanesApart'>,
  ): Batcher<Request, Answer> {
    const batcher = new Batcher({
      ...options,
      limits: flightLimits(this.config),
      onFlight: (flight) => this.metrics.observeFlight(verb, flight),
    });
    this.metrics.watchFlights(verb, batcher);
    return batcher;
  }
}
