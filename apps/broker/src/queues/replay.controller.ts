import { Body, Controller, HttpCode, Param, Post } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import { queueName, replayAnswer, type ReplayAnswer, replayRequest } from '@rowmq/contract';
import type { z } from 'zod';
import { ApiCall } from '../http/api-call.js';
import { Audited, type Changes } from '../http/changes.js';
import { CalledBy, type Caller } from '../http/caller.js';
import { ReplayService } from './replay.service.js';

/** Hands settled messages out again. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/queues')
export class ReplayController {
  constructor(private readonly service: ReplayService) {}

  @Post(':queue/replay')
  @HttpCode(200)
  @ApiCall({
    id: 'replayQueue',
    summary: 'Enqueue settled messages of a time range again, as long as they are stored',
    needs: { scope: 'admin', reach: ['queue'] },
    status: 200,
    answer: replayAnswer,
    problems: ['invalid-request', 'queue-not-found', 'queue-full', 'queue-paused'],
  })
  async replay(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: replayRequest }) request: z.output<typeof replayRequest>,
    @CalledBy() caller: Caller,
    @Audited() changes: Changes,
  ): Promise<ReplayAnswer> {
    if (request.toQueue !== undefined) caller.mustReach(request.toQueue);
    const answer = await this.service.replay(queue, request);
    changes.outcome({ ...request, ...answer });
    return answer;
  }
}
