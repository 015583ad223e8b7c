import { Controller, Get, Param, Query } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import {
  browseAnswer,
  type BrowseAnswer,
  browseQuery,
  type BrowseQuery,
  encodeReceipt,
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
import { BrowseRepository, type DeliveryView, QueueRepository, ReaperRepository } from '@rowmq/store';
import { ApiCall } from '../http/api-call.js';
import { LeaseHolders } from '../messages/lease-holders.js';
import { formatTime, toContent } from '../messages/message.codec.js';

const RUNS_SHOWN = 5;

/** Shows messages and the reaper's runs, and changes nothing. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin')
export class BrowseController {
  constructor(
    private readonly browse: BrowseRepository,
    private readonly queues: QueueRepository,
    private readonly reaper: ReaperRepository,
    private readonly holders: LeaseHolders,
  ) {}

  @Get('queues/:queue/messages')
  @ApiCall({
    summary: "A page of a queue's messages in one state, in hand-out order, without leasing them",
    status: 200,
    answer: browseAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  async browseQueue(
    @Param('queue', { schema: queueName }) name: string,
    @Query({ schema: browseQuery }) { state, limit, after }: BrowseQuery,
  ): Promise<BrowseAnswer> {
    const queue = await this.queues.getFresh(name);
    const page = await this.browse.browse(queue.id, state, limit, after).catch((error: unknown) => {
      if (error instanceof TypeError) throw new RowmqError('invalid-request', `${error.message}.`, { cause: error });
      throw error;
    });
    const messages = await this.browse.messages(page.deliveries.map(({ messageId }) => messageId));
    const holderOf = this.holdersOf(page.deliveries);
    const byId = new Map(messages.map((message) => [formatMessageId(message.id), message]));
    return {
      messages: page.deliveries.flatMap((delivery) => {
        const message = byId.get(formatMessageId(delivery.messageId));
        return message === undefined ? [] : { ...toContent(message), ...toBrowsed(delivery, holderOf) };
      }),
      nextAfter: page.nextAfter,
    };
  }

  @Get('messages/:id')
  @ApiCall({
    summary: 'A message and each of its deliveries, or that it is settled',
    status: 200,
    answer: messageAnswer,
    problems: ['invalid-request', 'delivery-not-found'],
  })
  async getMessage(@Param('id', { schema: messageIdText }) id: string): Promise<MessageAnswer> {
    const message = await this.browse.message(parseMessageId(id));
    if (message === undefined) {
      throw new RowmqError(
        'delivery-not-found',
        `Message ${id} is not stored: it was never enqueued, or it was settled and then reaped.`,
      );
    }
    const names = await this.queues.names();
    const deliveries = await this.browse.deliveries(message.id, [...names.keys()]);
    const holderOf = this.holdersOf(deliveries);
    // A settled message has no expiry of its own any more: its pack's is the latest that it can be.
    const expiresAt = deliveries.length === 0 ? message.expiresAt : Math.max(...deliveries.map((one) => one.expiresAt));
    return {
      ...toContent({ ...message, expiresAt }),
      queue: names.get(message.queueId) ?? null,
      settled: deliveries.length === 0,
      deliveries: deliveries.map((delivery) => ({
        queue: names.get(delivery.queueId) as string,
        ...toBrowsed(delivery, holderOf),
      })),
    };
  }

  @Get('reaper')
  @ApiCall({ summary: 'Who reaps, and the last runs of each duty', status: 200, answer: reaperAnswer, problems: [] })
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

  private holdersOf(deliveries: readonly DeliveryView[]): Map<string, string> {
    return this.holders.find(new Set(deliveries.flatMap((delivery) => receiptOf(delivery) ?? [])));
  }
}

/** The receipt of a leased delivery's message. */
function receiptOf({ messageId, lease }: DeliveryView): string | undefined {
  return lease === null ? undefined : encodeReceipt(messageId, lease.token);
}

function toBrowsed(delivery: DeliveryView, holderOf: ReadonlyMap<string, string>) {
  const { lease } = delivery;
  return {
    state: delivery.state,
    priority: delivery.priority,
    receiveCount: delivery.receiveCount,
    availableAt: formatTime(delivery.availableAt),
    expiresAt: formatTime(delivery.expiresAt),
    lastNackReason: delivery.nackReason,
    ...(lease !== null && {
      leasedAt: lease.since === null ? null : formatTime(lease.since),
      consumer: holderOf.get(receiptOf(delivery) as string) ?? null,
    }),
  };
}
