import {
  type BrowseAnswer,
  browseQuery,
  type BrowseQuery,
  type DeliveryState,
  LEASE_GRACE_MS,
  type LeasedMessage,
  type MessageAnswer,
  messageIdText,
  type QueueStats,
  readRequest,
  RowmqError,
} from '@rowmq/contract';
import type { Delivery } from './lease-protocol.js';
import { inHandOutOrder, type MemoryMessages } from './memory-messages.js';

/** A delivery, as `InMemoryBroker.messages` shows it. */
export type MemoryMessage = Pick<
  LeasedMessage,
  'id' | 'body' | 'bodyEncoding' | 'headers' | 'priority' | 'receiveCount'
> & {
  nackReason: string | undefined;
  /** For a leased delivery: the end of its lease. */
  availableAt: Date;
};

/** Shows the messages of an `InMemoryBroker`. */
export class MemoryViews {
  constructor(private readonly messages: MemoryMessages) {}

  stats(queue: string): QueueStats {
    const { protocol } = this.messages;
    const deliveries = protocol.in(queue);
    const of = (state: DeliveryState) => deliveries.filter((one) => this.#stateOf(one) === state);
    const ready = of('ready');
    const oldest = Math.min(...ready.map(({ availableAt }) => availableAt));
    return {
      ready: ready.length,
      delayed: of('delayed').length,
      leased: of('leased').length,
      waiting: of('waiting').length,
      oldestReadyAgeSeconds: ready.length === 0 ? null : (protocol.now - oldest) / 1000,
      ageSeconds: 0,
      errorBound: 0,
    };
  }

  browse(queue: string, query: Partial<BrowseQuery>): BrowseAnswer {
    this.messages.use(queue);
    const { state, limit, after = '0', ...filter } = readRequest(browseQuery, query);
    const from = Number.parseInt(after, 10) || 0;
    const found = this.messages.protocol
      .in(queue)
      .filter((delivery) => this.#stateOf(delivery) === state && this.messages.matches(filter, delivery))
      .toSorted(inHandOutOrder);
    const messages = found.slice(from, from + limit).map((delivery) => {
      const { queue: _, ...browsed } = this.#browsed(delivery);
      return { ...this.#shown(delivery), ...browsed };
    });
    return {
      messages,
      examined: messages.length,
      nextAfter: found.length > from + limit ? String(from + limit) : null,
    };
  }

  /** A settled message is forgotten at once, as if it had been reaped. */
  message(id: string): MessageAnswer {
    const { protocol, queues } = this.messages;
    protocol.now = Date.now();
    const deliveries = protocol.copies(readRequest(messageIdText, id).toLowerCase());
    const [first] = deliveries;
    if (first === undefined) {
      throw new RowmqError('delivery-not-found', `There is no message ${id}: it was settled, or never existed.`);
    }
    const { topic } = this.messages.content(first.id);
    return {
      ...this.#shown(first),
      queue: topic === null && queues.has(first.origin) ? first.origin : null,
      topic,
      settled: false,
      endings: [],
      deliveries: deliveries.map((one) => this.#browsed(one)),
    };
  }

  /** All deliveries of a queue, in any state, in the order in which they were enqueued. */
  all(queue: string): MemoryMessage[] {
    this.messages.use(queue);
    return this.messages.protocol.in(queue).map((delivery) => {
      const { id, body, priority, receiveCount, availableAt, token } = delivery;
      const { bodyEncoding, headers } = this.messages.content(id);
      const nackReason = this.messages.reason(delivery) ?? undefined;
      const from = new Date(token === null ? availableAt : availableAt - LEASE_GRACE_MS);
      return { id, body, bodyEncoding, headers, priority, receiveCount, nackReason, availableAt: from };
    });
  }

  #stateOf(delivery: Delivery): DeliveryState | 'expired' {
    const { protocol } = this.messages;
    if (protocol.isLeased(delivery)) return 'leased';
    if (delivery.expiresAt <= protocol.now) return 'expired';
    if (protocol.isBehind(delivery)) return 'waiting';
    return delivery.availableAt > protocol.now ? 'delayed' : 'ready';
  }

  #shown({ id, body, expiresAt }: Delivery) {
    const { bodyEncoding, headers, groupId, enqueuedAt } = this.messages.content(id);
    const times = { enqueuedAt: new Date(enqueuedAt).toISOString(), expiresAt: new Date(expiresAt).toISOString() };
    return { id, body, bodyEncoding, headers: { ...headers }, ...(groupId !== undefined && { groupId }), ...times };
  }

  #browsed(delivery: Delivery): MessageAnswer['deliveries'][number] {
    const { queue, priority, receiveCount, availableAt, expiresAt } = delivery;
    const state = this.#stateOf(delivery);
    return {
      queue,
      state,
      priority,
      receiveCount,
      availableAt: new Date(state === 'leased' ? availableAt - LEASE_GRACE_MS : availableAt).toISOString(),
      expiresAt: new Date(expiresAt).toISOString(),
      lastNackReason: this.messages.reason(delivery),
      source: delivery.origin === queue || !this.messages.queues.has(delivery.origin) ? null : delivery.origin,
      moves: this.messages.moves.of(delivery).map(({ at, ...move }) => ({ ...move, at: new Date(at).toISOString() })),
    };
  }
}
