import {
  Body,
  Controller,
  Delete,
  Get,
  Headers,
  HttpCode,
  HttpStatus,
  Param,
  Post,
  Put,
  Query,
  Res,
} from '@nestjs/common';
import { ApiBearerAuth, ApiBody, ApiHeader, ApiResponse, ApiTags } from '@nestjs/swagger';
import {
  deleteQueueQuery,
  onlyIfAbsent,
  pauseAnswer,
  type PauseAnswer,
  pauseRequest,
  putQueueRequest,
  type PutQueueRequest,
  queueAnswer,
  type QueueAnswer,
  queueName,
  queuesAnswer,
  type QueuesAnswer,
  readRequest,
  resumeRequest,
} from '@rowmq/contract';
import type { z } from 'zod';
import { ApiCall } from '../http/api-call.js';
import { Audited, type Changes } from '../http/changes.js';
import { orNull } from '../http/or-null.js';
import { CalledBy, type Caller } from '../http/caller.js';
import { QueuesService } from './queues.service.js';

/** Queues and their settings. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/queues')
export class QueuesController {
  constructor(private readonly queues: QueuesService) {}

  @Get()
  @ApiCall({
    id: 'listQueues',
    summary: 'Every queue, with settings and stats',
    needs: { scope: 'admin' },
    status: 200,
    answer: queuesAnswer,
    problems: ['invalid-request'],
  })
  async list(@CalledBy() caller: Caller): Promise<QueuesAnswer> {
    return { queues: await this.queues.list(caller) };
  }

  @Get(':queue')
  @ApiCall({
    id: 'getQueue',
    summary: 'One queue, with settings and stats',
    needs: { scope: 'admin', reach: ['queue'] },
    status: 200,
    answer: queueAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  async get(@Param('queue', { schema: queueName }) queue: string): Promise<QueueAnswer> {
    return this.queues.get(queue);
  }

  @Put(':queue')
  @ApiCall({
    id: 'putQueue',
    summary: 'Create a queue, or change the settings that are given',
    needs: { scope: 'admin', reach: ['queue'] },
    status: 200,
    answer: queueAnswer,
    problems: ['invalid-request', 'queue-exists', 'queue-locked'],
  })
  @ApiResponse({ status: 201, description: 'Created', standardSchema: queueAnswer })
  @ApiHeader({
    name: 'If-None-Match',
    required: false,
    description: '`*`: create the queue only if it does not exist, and never change it',
    schema: { type: 'string', enum: ['*'] },
  })
  @ApiBody({ required: false })
  async put(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: putQueueRequest }) settings: PutQueueRequest,
    @Headers('if-none-match') ifNoneMatch: string | undefined,
    @Res({ passthrough: true }) response: { status(code: number): unknown },
    @CalledBy() caller: Caller,
    @Audited() changes: Changes,
  ): Promise<QueueAnswer> {
    if (typeof settings.deadLetterQueue === 'string') caller.mustReach(settings.deadLetterQueue);
    const mayChange = readRequest(onlyIfAbsent, ifNoneMatch) === undefined;
    const { created, answer } = await this.reported(changes, queue, () =>
      mayChange ? this.queues.put(queue, settings) : this.queues.create(queue, settings),
    );
    response.status(created ? HttpStatus.CREATED : HttpStatus.OK);
    return answer;
  }

  @Delete(':queue')
  @HttpCode(204)
  @ApiCall({
    id: 'deleteQueue',
    summary: 'Delete a queue; with force=true also one that has messages',
    needs: { scope: 'admin', reach: ['queue'] },
    hasQuery: true,
    status: 204,
    problems: ['invalid-request', 'queue-not-found', 'queue-not-empty', 'queue-locked'],
  })
  async delete(
    @Param('queue', { schema: queueName }) queue: string,
    @Query({ schema: deleteQueueQuery }) { force }: z.output<typeof deleteQueueQuery>,
    @Audited() changes: Changes,
  ): Promise<void> {
    await this.reported(changes, queue, () => this.queues.delete(queue, { force: force === 'true' }));
  }

  @Post(':queue/pause')
  @HttpCode(200)
  @ApiCall({
    id: 'pauseQueue',
    summary: 'Pause consumers, so that dequeue answers empty within a second on every broker; or producers, or both',
    needs: { scope: 'admin', reach: ['queue'] },
    status: 200,
    answer: pauseAnswer,
    problems: ['invalid-request', 'queue-not-found', 'queue-locked'],
  })
  @ApiBody({ required: false })
  async pause(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: pauseRequest }) request: z.output<typeof pauseRequest>,
    @Audited() changes: Changes,
  ): Promise<PauseAnswer> {
    return this.reported(changes, queue, () => this.queues.setPaused(queue, request?.side ?? 'consumers', true));
  }

  @Post(':queue/resume')
  @HttpCode(200)
  @ApiCall({
    id: 'resumeQueue',
    summary: 'End the pause of consumers and producers, or of one side',
    needs: { scope: 'admin', reach: ['queue'] },
    status: 200,
    answer: pauseAnswer,
    problems: ['invalid-request', 'queue-not-found', 'queue-locked'],
  })
  @ApiBody({ required: false })
  async resume(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: resumeRequest }) request: z.output<typeof resumeRequest>,
    @Audited() changes: Changes,
  ): Promise<PauseAnswer> {
    return this.reported(changes, queue, () => this.queues.setPaused(queue, request?.side ?? 'both', false));
  }

  /** Does something to a queue, and reports its settings before and after. */
  private async reported<T>(changes: Changes, queue: string, action: () => Promise<T>): Promise<T> {
    const settings = async (): Promise<object | null> => orNull(this.queues.settings(queue), 'queue-not-found');
    const before = await settings();
    const result = await action();
    changes.report(before, await settings());
    return result;
  }
}
