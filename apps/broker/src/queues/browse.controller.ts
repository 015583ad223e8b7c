import { Controller, Get, Param, Query } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import {
  browseAnswer,
  type BrowseAnswer,
  browseQuery,
  type BrowseQuery,
  encodeReceipt,
  leaseOf,
  formatMessageId,
  messageAnswer,
  type MessageAnswer,
  messageIdText,
  parseMessageId,
  queueName,
  reaperAnswer,
  type ReaperAnswer,
  RowmqError,
} from '@rowmq/contract';
import { BrowseRepository, type DeliveryView, QueueRepository, ReaperRepository, TopicRepository } from '@rowmq/store';
import { ApiCall } from '../http/api-call.js';
import { CalledBy, type Caller } from '../http/caller.js';
import type { KnownConsumer } from '../messages/known-consumers.js';
import { LeaseHolders } from '../messages/lease-holders.js';
import { formatTime, toContent } from '../messages/message.codec.js';

const RUNS_SHOWN = 5;
/** Stands for a queue or a topic that was deleted, which only a key without patterns reaches. */
const DELETED = '(deleted)';

/** Shows messages and the reaper's runs, and changes nothing. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin')
export class BrowseController {
  constructor(
    private readonly browse: BrowseRepository,
    private readonly queues: QueueRepository,
    private readonly reaper: ReaperRepository,
    private readonly topics: TopicRepository,
    private readonly holders: LeaseHolders,
  ) {}

  @Get('queues/:queue/messages')
  @ApiCall({
    summary: "A page of a queue's messages in one state, in hand-out order, without leasing them",
    needs: { scope: 'admin', reach: ['queue'] },
    hasQuery: true,
    status: 200,
    answer: browseAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  async browseQueue(
    @Param('queue', { schema: queueName }) name: string,
    @Query({ schema: browseQuery }) { state, limit, after, ...filter }: BrowseQuery,
  ): Promise<BrowseAnswer> {
    const queue = await this.queues.getFresh(name);
    const page = await this.browse.browse(queue.id, state, limit, after, filter).catch((error: unknown) => {
      if (error instanceof TypeError) throw new RowmqError('invalid-request', `${error.message}.`, { cause: error });
      throw error;
    });
    const messages = await this.browse.messages(page.deliveries.map(({ messageId }) => messageId));
    const names = await this.namesFor(page.deliveries);
    const holderOf = this.holdersOf(page.deliveries);
    const byId = new Map(messages.map((message) => [formatMessageId(message.id), message]));
    return {
      messages: page.deliveries.flatMap((delivery) => {
        const message = byId.get(formatMessageId(delivery.messageId));
        return message === undefined ? [] : { ...toContent(message), ...toBrowsed(delivery, names, holderOf) };
      }),
      examined: page.examined,
      nextAfter: page.nextAfter,
    };
  }

  @Get('messages/:id')
  @ApiCall({
    summary: 'A message and each of its deliveries, or that it is settled',
    needs: { scope: 'admin' },
    status: 200,
    answer: messageAnswer,
    problems: ['invalid-request', 'delivery-not-found'],
  })
  async getMessage(
    @Param('id', { schema: messageIdText }) id: string,
    @CalledBy() caller: Caller,
  ): Promise<MessageAnswer> {
    const message = await this.browse.message(parseMessageId(id));
    if (message === undefined) {
      throw new RowmqError(
        'delivery-not-found',
        `Message ${id} is not stored: it was never enqueued, or it was settled and then reaped.`,
      );
    }
    const names = await this.queues.names();
    const all = await this.browse.deliveries(message.id, [...names.keys()]);
    const deliveries = all.filter(({ queueId }) => caller.reaches(names.get(queueId) as string));
    const holderOf = this.holdersOf(deliveries);
    // A settled message has no expiry of its own any more: its pack's is the latest that it can be.
    const expiresAt = all.length === 0 ? message.expiresAt : Math.max(...all.map((one) => one.expiresAt));
    const queue = (message.queueId !== null && names.get(message.queueId)) || null;
    const topic = message.topicId === null ? null : ((await this.topics.nameOf(message.topicId)) ?? null);
    // A key that reaches none of its queues must not read it.
    if (deliveries.length === 0) caller.mustReach(queue ?? topic ?? DELETED);
    return {
      ...toContent({ ...message, expiresAt }),
      queue,
      topic,
      endings: (await this.browse.endings(message.id)).map(({ queueId, how }) => ({
        queue: names.get(queueId) ?? null,
        how,
      })),
      settled: all.length === 0,
      deliveries: deliveries.map((delivery) => ({
        queue: names.get(delivery.queueId) as string,
        ...toBrowsed(delivery, names, holderOf),
      })),
    };
  }

  @Get('reaper')
  @ApiCall({
    summary: 'Who reaps, and the last runs of each duty',
    needs: { scope: 'admin', reach: 'everything' },
    status: 200,
    answer: reaperAnswer,
    problems: ['invalid-request'],
  })
  async getReaper(): Promise<ReaperAnswer> {
    const leader = await this.reaper.leader();
    const duties = await Promise.all(
      (await this.reaper.duties()).map(async (duty) => ({
        duty,
        runs: (await this.reaper.lastRuns(duty, RUNS_SHOWN)).map((run) => ({
          startedAt: formatTime(run.startedAt),
          reaper: run.reaper,
          durationMs: run.durationMs,
          count: run.count,
          error: run.error,
        })),
      })),
    );
    return {
      leader: leader === null ? null : { reaper: leader.holder, leaseExpiresAt: formatTime(leader.expiresAt) },
      duties,
    };
  }

  /** The names of all queues, if a delivery has left one. */
  private async namesFor(deliveries: readonly DeliveryView[]): Promise<Map<number, string>> {
    return deliveries.some(({ moves }) => moves.length > 0) ? this.queues.names() : new Map<number, string>();
  }

  private holdersOf(deliveries: readonly DeliveryView[]): Map<string, KnownConsumer> {
    return this.holders.find(new Set(deliveries.flatMap((delivery) => leaseOfDelivery(delivery) ?? [])));
  }
}

/** The lease of a delivery's message, as {@link LeaseHolders.find} wants it. */
function leaseOfDelivery({ messageId, lease }: DeliveryView): string | undefined {
  if (lease === null) return undefined;
  return leaseOf(encodeReceipt({ messageId, leaseToken: lease.token, part: 0, members: 0 }));
}

function toBrowsed(
  delivery: DeliveryView,
  names: ReadonlyMap<number, string>,
  holderOf: ReadonlyMap<string, KnownConsumer>,
) {
  const { lease } = delivery;
  return {
    state: delivery.state,
    priority: delivery.priority,
    receiveCount: delivery.receiveCount,
    availableAt: formatTime(delivery.availableAt),
    expiresAt: formatTime(delivery.expiresAt),
    lastNackReason: delivery.nackReason,
    source: delivery.sourceQueueId === null ? null : (names.get(delivery.sourceQueueId) ?? null),
    moves: delivery.moves.map(({ from, at, cause, receives, reason }) => ({
      from: names.get(from) ?? null,
      at: formatTime(at),
      cause,
      receiveCount: receives,
      reason,
    })),
    ...(lease !== null && {
      leasedAt: lease.since === null ? null : formatTime(lease.since),
      consumer: holderOf.get(leaseOfDelivery(delivery) as string)?.name ?? null,
    }),
  };
}
