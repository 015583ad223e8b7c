import { Body, Controller, Param, Post } from '@nestjs/common';
import { ApiBearerAuth, ApiHeader, ApiTags } from '@nestjs/swagger';
import { type PublishAnswer, publishAnswer, publishRequest, topicName } from '@rowmq/contract';
import type { z } from 'zod';
import { ApiCall } from '../http/api-call.js';
import { CalledBy, type Caller } from '../http/caller.js';
import { IDEMPOTENCY_KEY_HEADER, IdempotencyKey } from '../messages/idempotency-key.js';
import { PublishService } from './publish.service.js';

/** The call that carries messages to topics. */
@ApiTags('messages')
@ApiBearerAuth()
@Controller('v1/topics/:topic/messages')
export class PublishController {
  constructor(private readonly publishing: PublishService) {}

  @Post()
  @ApiCall({
    summary: 'publish: store messages durably for every queue whose subscription matches, all or none',
    needs: { scope: 'enqueue', reach: ['topic'] },
    status: 201,
    answer: publishAnswer,
    problems: [
      'invalid-request',
      'topic-not-found',
      'enqueue-in-progress',
      'message-too-large',
      'idempotency-key-reused',
      'queue-full',
      'queue-paused',
      'rate-limited',
    ],
  })
  @ApiHeader(IDEMPOTENCY_KEY_HEADER)
  async publish(
    @Param('topic', { schema: topicName }) topic: string,
    @Body({ schema: publishRequest }) request: z.output<typeof publishRequest>,
    @IdempotencyKey() key: string | undefined,
    @CalledBy() caller: Caller,
  ): Promise<PublishAnswer> {
    return this.publishing.publish(topic, request.messages, key, caller.name);
  }
}
