import { Controller, Get, Param, Query } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import { historyAnswer, type HistoryAnswer, historyQuery, type HistoryQuery, queueName } from '@rowmq/contract';
import { MinuteRepository, QueueRepository } from '@rowmq/store';
import { ApiCall } from '../http/api-call.js';
import { formatTime } from '../messages/message.codec.js';

/** Shows the last day of a queue. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/queues/:queue/history')
export class HistoryController {
  constructor(
    private readonly queues: QueueRepository,
    private readonly minutes: MinuteRepository,
  ) {}

  @Get()
  @ApiCall({
    summary: 'The last minutes of a queue, up to a day: what happened in each, and how deep it was',
    needs: { scope: 'admin', reach: ['queue'] },
    hasQuery: true,
    status: 200,
    answer: historyAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  async getHistory(
    @Param('queue', { schema: queueName }) name: string,
    @Query({ schema: historyQuery }) { minutes }: HistoryQuery,
  ): Promise<HistoryAnswer> {
    const { id } = await this.queues.getFresh(name);
    const rows = await this.minutes.history(id, minutes);
    return { queue: name, minutes: rows.map(({ at, ...row }) => ({ at: formatTime(at), ...row })) };
  }
}
