import { Body, Controller, HttpCode, Param, Post } from '@nestjs/common';
import { ApiBearerAuth, ApiBody, ApiTags } from '@nestjs/swagger';
import { dropRequest, emptyRequest, jobAnswer, type JobAnswer, queueName, redriveRequest } from '@rowmq/contract';
import type { z } from 'zod';
import { ApiCall } from '../http/api-call.js';
import { Audited, type Changes } from '../http/changes.js';
import { CalledBy, type Caller } from '../http/caller.js';
import { JobsService } from './jobs.service.js';

/** The calls that begin a job on a queue. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/queues')
export class QueueJobsController {
  constructor(private readonly jobs: JobsService) {}

  @Post(':queue/redrive')
  @HttpCode(202)
  @ApiCall({
    id: 'redriveQueue',
    summary: 'Begin to move messages back to the queues that they left first, or to another queue',
    needs: { scope: 'admin', reach: ['queue'] },
    status: 202,
    answer: jobAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  @ApiBody({ required: false })
  async redrive(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: redriveRequest }) request: z.output<typeof redriveRequest>,
    @CalledBy() caller: Caller,
    @Audited() changes: Changes,
  ): Promise<JobAnswer> {
    return reported(changes, await this.jobs.redrive(caller, queue, request));
  }

  @Post(':queue/drop')
  @HttpCode(202)
  @ApiCall({
    id: 'dropMessages',
    summary: 'Begin to settle messages that no consumer holds',
    needs: { scope: 'admin', reach: ['queue'] },
    status: 202,
    answer: jobAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  @ApiBody({ required: false })
  async drop(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: dropRequest }) request: z.output<typeof dropRequest>,
    @Audited() changes: Changes,
  ): Promise<JobAnswer> {
    return reported(changes, await this.jobs.drop(queue, request));
  }

  @Post(':queue/purge')
  @HttpCode(202)
  @ApiCall({
    id: 'purgeQueue',
    summary: 'Begin to settle every message that is in the queue now, leased ones included',
    needs: { scope: 'admin', reach: ['queue'] },
    status: 202,
    answer: jobAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  @ApiBody({ required: false })
  async purge(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: emptyRequest }) _request: unknown,
    @Audited() changes: Changes,
  ): Promise<JobAnswer> {
    return reported(changes, await this.jobs.purge(queue));
  }
}

/** Tells the audit which job an action has begun, without the text of a body. */
function reported(changes: Changes, job: JobAnswer): JobAnswer {
  const { id, toQueue, filter, maxMessages } = job;
  changes.outcome({
    job: id,
    filter: filter.body === undefined ? filter : { ...filter, body: '…' },
    ...(toQueue !== null && { toQueue }),
    ...(maxMessages !== null && { maxMessages }),
  });
  return job;
}
