import {
  checkDeadLetterExpired,
  checkDeadLetterPath,
  checkMaxReceives,
  checkOrdering,
  type PauseAnswer,
  type PauseSide,
  putQueueRequest,
  type PutQueueRequest,
  type QueueAnswer,
  queueName,
  readRequest,
  RowmqError,
} from '@rowmq/contract';
import type { MemoryMessages } from './memory-messages.js';
import type { MemoryViews } from './memory-views.js';

/** The settings of an `InMemoryBroker`'s queues. */
export class MemoryQueues {
  constructor(
    private readonly messages: MemoryMessages,
    private readonly views: MemoryViews,
  ) {}

  /** Returns false, and changes nothing, if the queue exists. */
  create(queue: string, settings: PutQueueRequest): boolean {
    const name = readRequest(queueName, queue);
    readRequest(putQueueRequest, settings);
    if (this.messages.queues.has(name)) return false;
    this.put(name, settings);
    return true;
  }

  /** A refused request changes nothing, and creates nothing. */
  put(queue: string, settings: PutQueueRequest): QueueAnswer {
    const { queues } = this.messages;
    const name = readRequest(queueName, queue);
    const given = readRequest(putQueueRequest, settings);
    const to = given.deadLetterQueue;
    if (to !== undefined && to !== null) {
      if (to !== name && !queues.has(to)) {
        throw new RowmqError('invalid-request', `Dead-letter queue '${to}' does not exist; create it first.`);
      }
      checkDeadLetterPath(name, this.#deadLetterPath(to));
    }
    const was = queues.get(name)?.ordering;
    const target = typeof to === 'string' ? { name: to, ordering: this.messages.use(to).ordering } : undefined;
    const current = this.messages.use(name);
    const changed = { ...current, ...given };
    try {
      checkOrdering(name, changed.ordering, was, target);
      checkMaxReceives(name, changed.maxReceives, changed.deadLetterQueue !== null);
      checkDeadLetterExpired(name, changed.deadLetterExpired, changed.deadLetterQueue !== null);
    } catch (error) {
      if (was === undefined) queues.delete(name);
      throw error;
    }
    Object.assign(current, given);
    this.messages.wake();
    return this.get(name);
  }

  get(queue: string): QueueAnswer {
    const { createdAt, ...settings } = this.messages.use(queue);
    const rates = ([1, 5, 60] as const).map((minutes) => ({ minutes, in: 0, out: 0, failed: 0, expired: 0 }));
    const stats = this.views.stats(queue);
    return { name: queue, ...settings, createdAt: new Date(createdAt).toISOString(), stats, rates };
  }

  list(): QueueAnswer[] {
    return [...this.messages.queues.keys()].toSorted().map((name) => this.get(name));
  }

  delete(queue: string, force: boolean): void {
    const { queues, protocol } = this.messages;
    this.messages.use(queue);
    const user = [...queues].find(([, { deadLetterQueue }]) => deadLetterQueue === queue)?.[0];
    if (user !== undefined) {
      throw new RowmqError(
        'invalid-request',
        `Queue '${queue}' is the dead-letter queue of '${user}'; change that first.`,
      );
    }
    const depth = protocol.depth(queue);
    if (depth > 0 && !force)
      throw new RowmqError('queue-not-empty', `Queue '${queue}' has ${depth} messages; delete it with force.`);
    this.messages.forgetQueue(queue);
  }

  setPaused(queue: string, side: PauseSide, value: boolean): PauseAnswer {
    const settings = this.messages.use(queue);
    if (side !== 'producers') settings.paused = value;
    if (side !== 'consumers') settings.producersPaused = value;
    this.messages.wake();
    return { name: queue, paused: settings.paused, producersPaused: settings.producersPaused };
  }

  /** A queue, its dead-letter queue, the dead-letter queue of that one, and so on. */
  #deadLetterPath(first: string): string[] {
    const { queues } = this.messages;
    const path: string[] = [];
    for (let next: string | null = first; next !== null; next = queues.get(next)?.deadLetterQueue ?? null)
      path.push(next);
    return path;
  }
}
