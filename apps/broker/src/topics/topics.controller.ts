import { Body, Controller, Delete, Get, HttpCode, HttpStatus, Param, Put, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiBody, ApiResponse, ApiTags } from '@nestjs/swagger';
import {
  putSubscriptionRequest,
  type PutSubscriptionRequest,
  putTopicRequest,
  type PutTopicRequest,
  queueName,
  type SubscriptionAnswer,
  subscriptionAnswer,
  type TopicAnswer,
  topicAnswer,
  topicName,
  type TopicsAnswer,
  topicsAnswer,
} from '@rowmq/contract';
import { type SubscriptionView, TopicRepository, type TopicView } from '@rowmq/store';
import { ApiCall } from '../http/api-call.js';
import { Audited, type Changes } from '../http/changes.js';
import { orNull } from '../http/or-null.js';
import { CalledBy, type Caller } from '../http/caller.js';
import { formatTime } from '../messages/message.codec.js';

interface Response {
  status(code: number): unknown;
}

/** Topics and their subscriptions. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/topics')
export class TopicsController {
  constructor(private readonly topics: TopicRepository) {}

  @Get()
  @ApiCall({
    id: 'listTopics',
    summary: 'Every topic, with its subscriptions',
    needs: { scope: 'admin' },
    status: 200,
    answer: topicsAnswer,
    problems: ['invalid-request'],
  })
  async list(@CalledBy() caller: Caller): Promise<TopicsAnswer> {
    return { topics: (await this.topics.list()).filter(({ name }) => caller.reaches(name)).map(toTopic) };
  }

  @Get(':topic')
  @ApiCall({
    id: 'getTopic',
    summary: 'One topic, with its subscriptions',
    needs: { scope: 'admin', reach: ['topic'] },
    status: 200,
    answer: topicAnswer,
    problems: ['invalid-request', 'topic-not-found'],
  })
  async get(@Param('topic', { schema: topicName }) topic: string): Promise<TopicAnswer> {
    return toTopic(await this.topics.get(topic));
  }

  @Put(':topic')
  @ApiCall({
    id: 'putTopic',
    summary: 'Create a topic, or change the settings that are given',
    needs: { scope: 'admin', reach: ['topic'] },
    status: 200,
    answer: topicAnswer,
    problems: ['invalid-request'],
  })
  @ApiResponse({ status: 201, description: 'Created', standardSchema: topicAnswer })
  @ApiBody({ required: false })
  async put(
    @Param('topic', { schema: topicName }) name: string,
    @Body({ schema: putTopicRequest }) settings: PutTopicRequest,
    @Res({ passthrough: true }) response: Response,
    @Audited() changes: Changes,
  ): Promise<TopicAnswer> {
    const before = await orNull(this.topics.get(name), 'topic-not-found');
    const { created, topic } = await this.topics.put(name, settings);
    changes.report(before && toTopic(before), toTopic(topic));
    response.status(created ? HttpStatus.CREATED : HttpStatus.OK);
    return toTopic(topic);
  }

  @Delete(':topic')
  @HttpCode(204)
  @ApiCall({
    id: 'deleteTopic',
    summary: 'Delete a topic and its subscriptions; their queues keep its messages',
    needs: { scope: 'admin', reach: ['topic'] },
    status: 204,
    problems: ['invalid-request', 'topic-not-found'],
  })
  async delete(@Param('topic', { schema: topicName }) topic: string, @Audited() changes: Changes): Promise<void> {
    const before = await this.topics.get(topic);
    await this.topics.delete(topic);
    changes.report(toTopic(before), null);
  }

  @Get(':topic/subscriptions/:queue')
  @ApiCall({
    id: 'getSubscription',
    summary: "A queue's subscription to a topic",
    needs: { scope: 'admin', reach: ['topic', 'queue'] },
    status: 200,
    answer: subscriptionAnswer,
    problems: ['invalid-request', 'topic-not-found', 'subscription-not-found'],
  })
  async getSubscription(
    @Param('topic', { schema: topicName }) topic: string,
    @Param('queue', { schema: queueName }) queue: string,
  ): Promise<SubscriptionAnswer> {
    return { topic, ...toSubscription(await this.topics.getSubscription(topic, queue)) };
  }

  @Put(':topic/subscriptions/:queue')
  @ApiCall({
    id: 'putSubscription',
    summary: 'Subscribe a queue to a topic, or change the filter of its subscription',
    needs: { scope: 'admin', reach: ['topic', 'queue'] },
    status: 200,
    answer: subscriptionAnswer,
    problems: ['invalid-request', 'topic-not-found', 'queue-not-found'],
  })
  @ApiResponse({ status: 201, description: 'Created', standardSchema: subscriptionAnswer })
  @ApiBody({ required: false })
  async putSubscription(
    @Param('topic', { schema: topicName }) topic: string,
    @Param('queue', { schema: queueName }) queue: string,
    @Body({ schema: putSubscriptionRequest }) { filter }: PutSubscriptionRequest,
    @Res({ passthrough: true }) response: Response,
    @Audited() changes: Changes,
  ): Promise<SubscriptionAnswer> {
    const before = await orNull(this.topics.getSubscription(topic, queue), 'subscription-not-found');
    const { created, subscription } = await this.topics.putSubscription(topic, queue, filter);
    changes.report(before && toSubscription(before), toSubscription(subscription));
    response.status(created ? HttpStatus.CREATED : HttpStatus.OK);
    return { topic, ...toSubscription(subscription) };
  }

  @Delete(':topic/subscriptions/:queue')
  @HttpCode(204)
  @ApiCall({
    id: 'deleteSubscription',
    summary: "End a queue's subscription to a topic; the queue keeps the topic's messages",
    needs: { scope: 'admin', reach: ['topic', 'queue'] },
    status: 204,
    problems: ['invalid-request', 'topic-not-found', 'subscription-not-found'],
  })
  async deleteSubscription(
    @Param('topic', { schema: topicName }) topic: string,
    @Param('queue', { schema: queueName }) queue: string,
    @Audited() changes: Changes,
  ): Promise<void> {
    const before = await this.topics.getSubscription(topic, queue);
    await this.topics.deleteSubscription(topic, queue);
    changes.report(toSubscription(before), null);
  }
}

function toTopic({ createdAt, subscriptions, ...topic }: TopicView): TopicAnswer {
  return { ...topic, createdAt: formatTime(createdAt), subscriptions: subscriptions.map(toSubscription) };
}

function toSubscription({ queue, filter, createdAt }: SubscriptionView): TopicAnswer['subscriptions'][number] {
  return { queue, filter, createdAt: formatTime(createdAt) };
}
