import { Body, Controller, Delete, Headers, HttpCode, Param, Post } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import {
  type AckAnswer,
  ackAnswer,
  ackRequest,
  type DequeueAnswer,
  dequeueAnswer,
  dequeueRequest,
  type EnqueueAnswer,
  enqueueAnswer,
  enqueueRequest,
  type ExtendAnswer,
  extendAnswer,
  extendRequest,
  type NackAnswer,
  nackAnswer,
  nackRequest,
  queueName,
  type ReleaseAnswer,
  releaseAnswer,
  releaseRequest,
} from '@rowmq/contract';
import type { z } from 'zod';
import { Client, type ClientConnection } from '../http/client-connection.js';
import { ApiCall } from '../http/api-call.js';
import { LeaseHolders } from './lease-holders.js';
import { MessagesService } from './messages.service.js';

/** The calls that carry messages. */
@ApiTags('messages')
@ApiBearerAuth()
@Controller('v1/queues/:queue/messages')
export class MessagesController {
  constructor(
    private readonly messages: MessagesService,
    private readonly holders: LeaseHolders,
  ) {}

  @Post()
  @ApiCall({
    summary: 'enqueue: store messages durably, all or none',
    status: 201,
    answer: enqueueAnswer,
    problems: ['invalid-request', 'queue-not-found', 'message-too-large', 'queue-full'],
  })
  async enqueue(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: enqueueRequest }) request: z.output<typeof enqueueRequest>,
  ): Promise<EnqueueAnswer> {
    return this.messages.enqueue(queue, request.messages);
  }

  @Post('dequeue')
  @HttpCode(200)
  @ApiCall({
    summary: 'dequeue: settle acks if it carries any, then lease up to maxMessages, and wait for the first if asked to',
    status: 200,
    answer: dequeueAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  async dequeue(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: dequeueRequest.default({ maxMessages: 1, waitSeconds: 0 }) })
    request: z.output<typeof dequeueRequest>,
    @Client() client: ClientConnection,
    @Headers('user-agent') userAgent: string | undefined,
  ): Promise<DequeueAnswer> {
    const answer = await this.messages.dequeue(queue, request, client.hungUp);
    this.holders.record(request.consumer ?? userAgent, answer.messages);
    return answer;
  }

  @Post('ack')
  @HttpCode(200)
  @ApiCall({
    summary: 'ack: settle leased messages; they are never delivered again',
    status: 200,
    answer: ackAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  async ack(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: ackRequest }) request: z.output<typeof ackRequest>,
  ): Promise<AckAnswer> {
    return this.messages.ack(queue, request.receipts);
  }

  @Delete(':receipt')
  @HttpCode(204)
  @ApiCall({
    summary: 'ack one message',
    status: 204,
    problems: ['invalid-request', 'queue-not-found', 'delivery-not-found', 'lease-lost'],
  })
  async ackOne(@Param('queue', { schema: queueName }) queue: string, @Param('receipt') receipt: string): Promise<void> {
    await this.messages.ackOne(queue, receipt);
  }

  @Post('nack')
  @HttpCode(200)
  @ApiCall({
    summary: 'nack: end leases, so that the messages are ready again at once or after a delay, or dead-letter them',
    status: 200,
    answer: nackAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  async nack(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: nackRequest }) request: z.output<typeof nackRequest>,
  ): Promise<NackAnswer> {
    return this.messages.nack(queue, request);
  }

  @Post('release')
  @HttpCode(200)
  @ApiCall({
    summary: 'release: undo leases of messages that no handler began with; the receive does not count',
    status: 200,
    answer: releaseAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  async release(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: releaseRequest }) request: z.output<typeof releaseRequest>,
  ): Promise<ReleaseAnswer> {
    return this.messages.release(queue, request);
  }

  @Post('extend')
  @HttpCode(200)
  @ApiCall({
    summary: "extend: move leases' deadlines to leaseSeconds from now",
    status: 200,
    answer: extendAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  async extend(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: extendRequest }) request: z.output<typeof extendRequest>,
    @Headers('user-agent') userAgent: string | undefined,
  ): Promise<ExtendAnswer> {
    const answer = await this.messages.extend(queue, request.receipts, request.leaseSeconds);
    this.holders.record(request.consumer ?? userAgent, answer.extended);
    return answer;
  }
}
