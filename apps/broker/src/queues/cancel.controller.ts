import { Controller, Delete, HttpCode, Param } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import { messageIdText, parseMessageId } from '@rowmq/contract';
import { MessageRepository, QueueRepository } from '@rowmq/store';
import { ApiCall } from '../http/api-call.js';
import { Audited, type Changes } from '../http/changes.js';
import { CalledBy, type Caller } from '../http/caller.js';
import { Metrics } from '../metrics/metrics.js';

/** Takes back messages that no consumer has received. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/messages')
export class CancelController {
  constructor(
    private readonly messages: MessageRepository,
    private readonly queues: QueueRepository,
    private readonly metrics: Metrics,
  ) {}

  @Delete(':id')
  @HttpCode(204)
  @ApiCall({
    id: 'cancelMessage',
    summary: 'Cancel a message that is ready or delayed: it is never handed out',
    needs: { scope: 'admin' },
    status: 204,
    problems: ['invalid-request', 'delivery-not-found', 'message-leased'],
  })
  async cancel(
    @Param('id', { schema: messageIdText }) id: string,
    @CalledBy() caller: Caller,
    @Audited() changes: Changes,
  ): Promise<void> {
    const names = await this.queues.names();
    const reached = [...names].filter(([, name]) => caller.reaches(name)).map(([queueId]) => queueId);
    const cancelled = await this.messages.cancel(parseMessageId(id), reached);
    changes.outcome({ cancelledIn: cancelled.map((queueId) => names.get(queueId)) });
    for (const queueId of cancelled) this.metrics.count('cancelled', names.get(queueId) as string, 1);
  }
}
