import { Body, Controller, HttpCode, Param, Post } from '@nestjs/common';
import { ApiBearerAuth, ApiBody, ApiTags } from '@nestjs/swagger';
import { messageIdText, moveMessageRequest, oneMessageRequest, parseMessageId } from '@rowmq/contract';
import { MessageRepository, QueueRepository, type Wish } from '@rowmq/store';
import type { z } from 'zod';
import { ApiCall } from '../http/api-call.js';
import { Audited, type Changes } from '../http/changes.js';
import { CalledBy, type Caller } from '../http/caller.js';
import { WaitingConsumers } from '../messages/waiting-consumers.js';
import { type MessageEvent, Metrics } from '../metrics/metrics.js';

const EVENTS: Record<Wish['does'], MessageEvent> = {
  ack: 'acked',
  release: 'released',
  redrive: 'redriven',
  move: 'moved',
};

/** Changes single messages for an operator, also those that a consumer holds. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/messages')
export class OneMessageController {
  constructor(
    private readonly messages: MessageRepository,
    private readonly queues: QueueRepository,
    private readonly consumers: WaitingConsumers,
    private readonly metrics: Metrics,
  ) {}

  @Post(':id/ack')
  @HttpCode(204)
  @ApiCall({
    id: 'ackMessage',
    summary: 'Settle a message, also if a consumer holds it',
    needs: { scope: 'admin' },
    status: 204,
    problems: ['invalid-request', 'queue-not-found', 'delivery-not-found'],
  })
  @ApiBody({ required: false })
  async ack(
    @Param('id', { schema: messageIdText }) id: string,
    @Body({ schema: oneMessageRequest }) { queue }: z.output<typeof oneMessageRequest>,
    @CalledBy() caller: Caller,
    @Audited() changes: Changes,
  ): Promise<void> {
    await this.fulfil({ caller, changes }, id, { does: 'ack' }, queue);
  }

  @Post(':id/release')
  @HttpCode(204)
  @ApiCall({
    id: 'releaseMessage',
    summary: 'Make a message ready that is leased or delayed; its lease does not count as a receive',
    needs: { scope: 'admin' },
    status: 204,
    problems: ['invalid-request', 'queue-not-found', 'delivery-not-found'],
  })
  @ApiBody({ required: false })
  async release(
    @Param('id', { schema: messageIdText }) id: string,
    @Body({ schema: oneMessageRequest }) { queue }: z.output<typeof oneMessageRequest>,
    @CalledBy() caller: Caller,
    @Audited() changes: Changes,
  ): Promise<void> {
    await this.fulfil({ caller, changes }, id, { does: 'release' }, queue);
  }

  @Post(':id/redrive')
  @HttpCode(204)
  @ApiCall({
    id: 'redriveMessage',
    summary: 'Move a message back to the queue that it left first',
    needs: { scope: 'admin' },
    status: 204,
    problems: ['invalid-request', 'queue-not-found', 'delivery-not-found'],
  })
  @ApiBody({ required: false })
  async redrive(
    @Param('id', { schema: messageIdText }) id: string,
    @Body({ schema: oneMessageRequest }) { queue }: z.output<typeof oneMessageRequest>,
    @CalledBy() caller: Caller,
    @Audited() changes: Changes,
  ): Promise<void> {
    await this.fulfil({ caller, changes }, id, { does: 'redrive' }, queue);
  }

  @Post(':id/move')
  @HttpCode(204)
  @ApiCall({
    id: 'moveMessage',
    summary: 'Move a message to another queue',
    needs: { scope: 'admin' },
    status: 204,
    problems: ['invalid-request', 'queue-not-found', 'delivery-not-found'],
  })
  async move(
    @Param('id', { schema: messageIdText }) id: string,
    @Body({ schema: moveMessageRequest }) { queue, toQueue }: z.output<typeof moveMessageRequest>,
    @CalledBy() caller: Caller,
    @Audited() changes: Changes,
  ): Promise<void> {
    caller.mustReach(toQueue);
    const target = await this.queues.getFresh(toQueue);
    await this.fulfil({ caller, changes }, id, { does: 'move', target }, queue);
  }

  /** Handles the message in this queue, or in every queue that the caller reaches. */
  private async fulfil(
    { caller, changes }: { caller: Caller; changes: Changes },
    id: string,
    wish: Omit<Wish, 'reaches'>,
    queue: string | undefined,
  ): Promise<void> {
    if (queue !== undefined) {
      caller.mustReach(queue);
      await this.queues.getFresh(queue);
    }
    const names = await this.queues.names();
    const reaches = (name: string): boolean => caller.reaches(name);
    const concerned = [...names].filter(([, name]) => (queue === undefined ? reaches(name) : name === queue));
    const queueIds = concerned.map(([queueId]) => queueId);
    const handled = await this.messages.fulfil(parseMessageId(id), queueIds, { ...wish, reaches });
    changes.outcome({
      queues: handled.map(({ queueId, targetId }) => ({
        from: names.get(queueId),
        to: targetId === null ? null : names.get(targetId),
      })),
    });
    for (const { queueId, targetId } of handled) {
      this.metrics.count(EVENTS[wish.does], names.get(queueId) as string, 1);
      const target = targetId === null ? undefined : names.get(targetId);
      if (target !== undefined) this.consumers.wake(target, 1);
    }
  }
}
