import { Inject, Injectable } from '@nestjs/common';
import { formatMessageId, matches, type PublishAnswer, type PublishMessage } from '@rowmq/contract';
import { MessageRepository, type Published, type PublishOutcome, type PublishRequest, TopicCache } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { type BatchConfig, batchLimits } from '../messages/batch-limits.js';
import { Batcher } from '../messages/batcher.js';
import { hasGroups, type Lane, laneOf } from '../messages/lane.js';
import { toNewMessage } from '../messages/message.codec.js';
import { type CallerName, RequestLimits } from '../messages/request-limits.js';
import { Offer } from '../messages/offer.js';
import { WaitingConsumers } from '../messages/waiting-consumers.js';
import { Metrics } from '../metrics/metrics.js';
import { Pressure } from '../metrics/pressure.js';

/** A delivery takes 110 bytes of SQL, and two bytes of SQL carry one of a body. */
const DELIVERY_BYTES = 55;

type WeighedRequest = PublishRequest & { subscriptions: number };

/** Group commit of publish, as `Commits` does it for the other verbs. */
@Injectable()
export class PublishService {
  private readonly batchers: Record<Exclude<Lane, 'inOrder'>, Batcher<WeighedRequest, Published[]>>;

  constructor(
    private readonly messages: MessageRepository,
    private readonly topics: TopicCache,
    private readonly consumers: WaitingConsumers,
    private readonly metrics: Metrics,
    @Inject(BROKER_CONFIG) private readonly config: BatchConfig & Pick<BrokerConfig, 'sizes'>,
    private readonly limits: RequestLimits,
    private readonly pressure: Pressure,
  ) {
    this.batchers = {
      plain: this.batcher('publish'),
      withKey: this.batcher('publish-with-key'),
      withIds: this.batcher('publish-with-ids'),
      withGroups: this.batcher('publish-with-groups', true),
    };
  }

  /**
   * Stores messages for every subscription that wants them, all or none, and answers after COMMIT.
   * A repeat with the same key stores nothing, and gets the first answer. Throws `topic-not-found`,
   * `message-too-large`, `queue-full`, `queue-paused`, `rate-limited`, `invalid-request`,
   * `idempotency-key-reused`, `enqueue-in-progress`.
   */
  async publish(
    topicName: string,
    messages: PublishMessage[],
    idempotencyKey: string | undefined,
    caller: CallerName,
  ): Promise<PublishAnswer> {
    const made = messages.map((message, index) => ({
      ...toNewMessage(message, index, this.config.sizes),
      values: message.headers ?? {},
    }));
    const { subscriptions } = await this.topics.get(topicName);
    const limited = subscriptions.filter(({ queue }) => queue.maxMessagesPerSecond !== null);
    this.limits.admitPublish(
      caller,
      made.length,
      limited.map(({ queue, filter }) => ({
        queue,
        messages: made.filter(({ values }) => matches(filter, values)).length,
      })),
    );
    const request = { topicName, messages: made, idempotencyKey, subscriptions: subscriptions.length };
    const published = await this.batchers[hasGroups(request) ? 'withGroups' : laneOf(request)].submit(
      topicName,
      request,
      caller ?? undefined,
    );
    for (const [queue, count] of counts(published.flatMap(({ queues }) => queues)))
      this.metrics.count('enqueued', queue, count);
    return {
      messages: published.map(({ id, duplicate, subscriptions: count }) => ({
        id: formatMessageId(id),
        subscriptions: count,
        ...(duplicate && { duplicate }),
      })),
    };
  }

  private batcher(verb: string, isGrouped = false): Batcher<WeighedRequest, Published[]> {
    const batcher = new Batcher<WeighedRequest, Published[]>({
      commit: (requests) => this.store(requests, isGrouped),
      weigh: ({ messages: sent, subscriptions }) => ({
        rows: sent.length,
        bytes: sent.reduce(
          (sum, { body, headers }) => sum + body.length + (headers?.length ?? 0) + subscriptions * DELIVERY_BYTES,
          0,
        ),
      }),
      limits: batchLimits(this.config),
      onBegin: () => this.pressure.begin(),
      onBatch: (batch) => this.metrics.observeBatch(verb, batch),
    });
    this.metrics.addBatcher(verb, batcher);
    return batcher;
  }

  private async store(requests: readonly PublishRequest[], isGrouped: boolean): Promise<PublishOutcome[]> {
    const offer = new Offer(this.consumers);
    const outcomes = await this.messages.publish(requests, {
      reserve: (queue, messages) => offer.reserve(queue, messages),
    });
    const stored = outcomes.flatMap((outcome) => (outcome instanceof Error ? [] : outcome));
    const queues = stored.flatMap((one) => one.queues);
    offer.wakeOthers(queues, isGrouped ? counts(queues) : undefined);
    return outcomes;
  }
}

function counts(names: readonly string[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const name of names) found.set(name, (found.get(name) ?? 0) + 1);
  return found;
}
