import { Body, Controller, Delete, Get, HttpCode, HttpStatus, Param, Post, Put, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiBody, ApiResponse, ApiTags } from '@nestjs/swagger';
import {
  emptyRequest,
  pauseAnswer,
  type PauseAnswer,
  purgeAnswer,
  type PurgeAnswer,
  putQueueRequest,
  type PutQueueRequest,
  queueAnswer,
  type QueueAnswer,
  queueName,
  queuesAnswer,
  type QueuesAnswer,
  redriveAnswer,
  type RedriveAnswer,
  redriveRequest,
  type RedriveRequest,
} from '@rowmq/contract';
import { ApiCall } from '../http/api-call.js';
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
    status: 200,
    answer: queuesAnswer,
    problems: [],
  })
  async list(): Promise<QueuesAnswer> {
    return { queues: await this.queues.list() };
  }

  @Get(':queue')
  @ApiCall({
    id: 'getQueue',
    summary: 'One queue, with settings and stats',
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
    status: 200,
    answer: queueAnswer,
    problems: ['invalid-request', 'queue-locked'],
  })
  @ApiResponse({ status: 201, description: 'Created', standardSchema: queueAnswer })
  async put(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: putQueueRequest }) settings: PutQueueRequest,
    @Res({ passthrough: true }) response: { status(code: number): unknown },
  ): Promise<QueueAnswer> {
    const { created, answer } = await this.queues.put(queue, settings);
    response.status(created ? HttpStatus.CREATED : HttpStatus.OK);
    return answer;
  }

  @Delete(':queue')
  @HttpCode(204)
  @ApiCall({
    id: 'deleteQueue',
    summary: 'Delete a queue and everything in it',
    status: 204,
    problems: ['invalid-request', 'queue-not-found', 'queue-locked'],
  })
  async delete(@Param('queue', { schema: queueName }) queue: string): Promise<void> {
    await this.queues.delete(queue);
  }

  @Post(':queue/purge')
  @HttpCode(200)
  @ApiCall({
    id: 'purgeQueue',
    summary: 'Drop every delivery, leased ones included',
    status: 200,
    answer: purgeAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  @ApiBody({ required: false })
  async purge(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: emptyRequest }) _request: unknown,
  ): Promise<PurgeAnswer> {
    return this.queues.purge(queue);
  }

  @Post(':queue/pause')
  @HttpCode(200)
  @ApiCall({
    id: 'pauseQueue',
    summary: 'Stop hand-out: dequeue answers empty, within a second on every broker. Enqueue goes on',
    status: 200,
    answer: pauseAnswer,
    problems: ['invalid-request', 'queue-not-found', 'queue-locked'],
  })
  @ApiBody({ required: false })
  async pause(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: emptyRequest }) _request: unknown,
  ): Promise<PauseAnswer> {
    return this.queues.setPaused(queue, true);
  }

  @Post(':queue/resume')
  @HttpCode(200)
  @ApiCall({
    id: 'resumeQueue',
    summary: 'Hand out again',
    status: 200,
    answer: pauseAnswer,
    problems: ['invalid-request', 'queue-not-found', 'queue-locked'],
  })
  @ApiBody({ required: false })
  async resume(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: emptyRequest }) _request: unknown,
  ): Promise<PauseAnswer> {
    return this.queues.setPaused(queue, false);
  }

  @Post(':queue/redrive')
  @HttpCode(200)
  @ApiCall({
    id: 'redriveQueue',
    summary: "Move a dead-letter queue's deliveries back to the queues they were enqueued in",
    status: 200,
    answer: redriveAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  async redrive(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: redriveRequest }) request: RedriveRequest,
  ): Promise<RedriveAnswer> {
    return this.queues.redrive(queue, request.maxMessages);
  }
}
