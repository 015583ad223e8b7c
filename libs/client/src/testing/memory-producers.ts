import {
  checkGroup,
  type EnqueueAnswer,
  enqueueRequest,
  type EnqueueRequest,
  IDEMPOTENCY_SECONDS,
  idempotencyKey as idempotencyKeySchema,
  type PublishAnswer,
  publishRequest,
  type PublishRequest,
  readRequest,
  type SizeLimits,
} from '@rowmq/contract';
import { EarlierEnqueues } from './earlier-enqueues.js';
import type { MemoryMessages } from './memory-messages.js';
import type { MemoryTopics } from './memory-topics.js';

/** Enqueue and publish of an `InMemoryBroker`, each stored once. */
export class MemoryProducers {
  readonly #enqueued = new EarlierEnqueues();
  readonly #published = new EarlierEnqueues<PublishAnswer>();

  constructor(
    private readonly messages: MemoryMessages,
    private readonly topics: MemoryTopics,
    private readonly sizes: SizeLimits,
  ) {}

  enqueue(queue: string, request: EnqueueRequest, idempotencyKey: string | undefined): EnqueueAnswer {
    const { deduplicationSeconds, ordering } = this.messages.use(queue);
    const { now } = this.messages.protocol;
    const { messages } = readRequest(enqueueRequest, request, this.sizes);
    for (const [index, message] of messages.entries()) checkGroup(message, { name: queue, ordering }, index);
    const key = readRequest(idempotencyKeySchema, idempotencyKey);
    const text = textOf(messages);
    const repeated = key === undefined ? undefined : this.#enqueued.answer(queue, key, text, now);
    if (repeated !== undefined) return repeated;
    const stamped = this.messages.stamp(messages, null);
    const firsts = this.#enqueued.firsts(queue, stamped, now);
    const fresh = stamped.filter((_, index) => firsts[index] === undefined);
    const drafts = this.messages.draft(queue, fresh, 0);
    if (ordering === null) this.messages.place(queue, fresh, drafts);
    this.messages.store(fresh, drafts);
    const answer = {
      messages: stamped.map(({ id }, index) => {
        const first = firsts[index];
        return first === undefined ? { id } : { id: first.id, duplicate: true as const };
      }),
    };
    this.#enqueued.rememberMessages(queue, fresh, now, deduplicationSeconds);
    if (key !== undefined) {
      const seconds = Math.max(deduplicationSeconds, IDEMPOTENCY_SECONDS);
      this.#enqueued.rememberAnswer(queue, key, { request: text, answer }, now, seconds);
    }
    return answer;
  }

  publish(topic: string, request: PublishRequest, idempotencyKey: string | undefined): PublishAnswer {
    const now = (this.messages.protocol.now = Date.now());
    const { messages } = readRequest(publishRequest, request, this.sizes);
    const { deduplicationSeconds } = this.topics.use(topic);
    const key = readRequest(idempotencyKeySchema, idempotencyKey);
    const text = textOf(messages);
    const repeated = key === undefined ? undefined : this.#published.answer(topic, key, text, now);
    if (repeated !== undefined) return repeated;
    const stamped = this.messages.stamp(messages, topic).map((message, index) => {
      const subscribers = this.topics.subscribers(topic, message.headers ?? {});
      return { ...message, index, subscribers, subscriptions: subscribers.length };
    });
    const firsts = this.#published.firsts(topic, stamped, now);
    const fresh = stamped.filter((_, index) => firsts[index] === undefined);
    const copies = new Map(fresh.flatMap(({ subscribers }) => subscribers.map(({ queue, copy }) => [queue, copy])));
    const drafts = [...copies].flatMap(([queue, copy]) => {
      const ofQueue = fresh.filter(({ subscribers }) => subscribers.some((one) => one.queue === queue));
      const { ordering } = this.messages.use(queue);
      for (const one of ofQueue) checkGroup(one, { name: queue, ordering }, one.index);
      return this.messages.draft(queue, ofQueue, copy);
    });
    this.messages.store(fresh, drafts);
    this.messages.forgetSettled();
    const answer = {
      messages: stamped.map(({ id, subscriptions }, index) => {
        const first = firsts[index];
        if (first === undefined) return { id, subscriptions };
        return { id: first.id, subscriptions: first.subscriptions ?? 0, duplicate: true as const };
      }),
    };
    this.#published.rememberMessages(topic, fresh, now, deduplicationSeconds);
    if (key !== undefined) {
      const seconds = Math.max(deduplicationSeconds, IDEMPOTENCY_SECONDS);
      this.#published.rememberAnswer(topic, key, { request: text, answer }, now, seconds);
    }
    return answer;
  }

  forgetQueue(queue: string): void {
    this.#enqueued.forget(queue);
  }

  forgetTopic(topic: string): void {
    this.#published.forget(topic);
  }
}

/** The text by which two requests are compared. Headers may come in any order. */
function textOf(messages: readonly { headers?: Readonly<Record<string, string>> | undefined }[]): string {
  return JSON.stringify(
    messages.map(({ headers = {}, ...message }) => ({
      ...message,
      headers: Object.entries(headers).toSorted(([one], [other]) => (one < other ? -1 : 1)),
    })),
  );
}
