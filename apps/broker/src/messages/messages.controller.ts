import { Body, Controller, Delete, Headers, HttpCode, Param, Post } from '@nestjs/common';
import { ApiBearerAuth, ApiBody, ApiHeader, ApiTags } from '@nestjs/swagger';
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
import { ClientAddress } from '../http/client-address.js';
import { Client, type ClientConnection } from '../http/client-connection.js';
import { ApiCall } from '../http/api-call.js';
import { CalledBy, type Caller } from '../http/caller.js';
import { UnreadAnswers } from '../http/unread-answers.js';
import { IDEMPOTENCY_KEY_HEADER, IdempotencyKey } from './idempotency-key.js';
import { KnownConsumers } from './known-consumers.js';
import { LeaseHolders } from './lease-holders.js';
import { MessagesService } from './messages.service.js';

/** The calls that carry messages. */
@ApiTags('messages')
@ApiBearerAuth()
@Controller('v1/queues/:queue/messages')
export class MessagesController {
  constructor(
    private readonly messages: MessagesService,
    private readonly consumers: KnownConsumers,
    private readonly holders: LeaseHolders,
    private readonly unread: UnreadAnswers,
  ) {}

  @Post()
  @ApiCall({
    summary: 'enqueue: store messages durably, all or none',
    needs: { scope: 'enqueue', reach: ['queue'] },
    status: 201,
    answer: enqueueAnswer,
    problems: [
      'invalid-request',
      'queue-not-found',
      'enqueue-in-progress',
      'message-too-large',
      'idempotency-key-reused',
      'queue-full',
      'queue-paused',
      'rate-limited',
    ],
  })
  @ApiHeader(IDEMPOTENCY_KEY_HEADER)
  async enqueue(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: enqueueRequest }) request: z.output<typeof enqueueRequest>,
    @IdempotencyKey() key: string | undefined,
    @CalledBy() caller: Caller,
  ): Promise<EnqueueAnswer> {
    return this.messages.enqueue(queue, request.messages, key, caller.name);
  }

  @Post('dequeue')
  @HttpCode(200)
  @ApiCall({
    summary: 'dequeue: settle acks if it carries any, then lease up to maxMessages, and wait for the first if asked to',
    needs: { scope: 'dequeue', reach: ['queue'] },
    status: 200,
    answer: dequeueAnswer,
    problems: ['invalid-request', 'queue-not-found', 'rate-limited'],
  })
  @ApiBody({ required: false })
  async dequeue(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: dequeueRequest.default({ maxMessages: 1, waitSeconds: 0 }) })
    request: z.output<typeof dequeueRequest>,
    @Client() client: ClientConnection,
    @ClientAddress() address: string,
    @CalledBy() caller: Caller,
    @Headers('user-agent') userAgent: string | undefined,
  ): Promise<DequeueAnswer> {
    this.unread.refuseIfFull();
    const consumer = this.consumers.see(queue, request.consumer ?? userAgent, address);
    consumer.waiting += 1;
    try {
      const answer = await this.messages.dequeue(queue, request, client.hungUp, caller.name);
      this.holders.record(consumer, answer.messages);
      return answer;
    } finally {
      consumer.waiting -= 1;
    }
  }

  @Post('ack')
  @HttpCode(200)
  @ApiCall({
    summary: 'ack: settle leased messages; they are never delivered again',
    needs: { scope: 'dequeue', reach: ['queue'] },
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
    needs: { scope: 'dequeue', reach: ['queue'] },
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
    needs: { scope: 'dequeue', reach: ['queue'] },
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
    needs: { scope: 'dequeue', reach: ['queue'] },
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
    needs: { scope: 'dequeue', reach: ['queue'] },
    status: 200,
    answer: extendAnswer,
    problems: ['invalid-request', 'queue-not-found'],
  })
  async extend(
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: extendRequest }) request: z.output<typeof extendRequest>,
    @ClientAddress() address: string,
    @Headers('user-agent') userAgent: string | undefined,
  ): Promise<ExtendAnswer> {
    const answer = await this.messages.extend(queue, request.receipts, request.leaseSeconds);
    this.holders.record(this.consumers.see(queue, request.consumer ?? userAgent, address), answer.extended);
    return answer;
  }
}
