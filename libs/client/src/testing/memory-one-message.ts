import {
  messageIdText,
  type MoveCause,
  moveMessageRequest,
  type MoveMessageRequest,
  oneMessageRequest,
  type OneMessageRequest,
  readRequest,
  RowmqError,
} from '@rowmq/contract';
import type { Delivery } from './lease-protocol.js';
import type { MemoryMessages } from './memory-messages.js';

/** The calls of administrators about one message of an `InMemoryBroker`. */
export class MemoryOneMessage {
  constructor(private readonly messages: MemoryMessages) {}

  cancel(id: string): void {
    const { protocol } = this.messages;
    protocol.now = Date.now();
    const code = protocol.cancel(readRequest(messageIdText, id).toLowerCase());
    this.messages.forgetSettled();
    if (code === null) return;
    const why = code === 'message-leased' ? 'a consumer holds it' : 'it was settled, or never existed';
    throw new RowmqError(code, `Message ${id} cannot be cancelled: ${why}.`);
  }

  ack(id: string, request: OneMessageRequest): void {
    for (const one of this.#owing(id, readRequest(oneMessageRequest, request).queue)) this.messages.protocol.drop(one);
    this.messages.forgetSettled();
    this.messages.wake();
  }

  release(id: string, request: OneMessageRequest): void {
    const { protocol } = this.messages;
    for (const one of this.#owing(id, readRequest(oneMessageRequest, request).queue)) {
      const receiveCount = one.token === null ? one.receiveCount : one.receiveCount - 1;
      protocol.offer(one, protocol.now, { receiveCount });
    }
    this.messages.wake();
  }

  redrive(id: string, request: OneMessageRequest): void {
    for (const one of this.#owing(id, readRequest(oneMessageRequest, request).queue))
      this.#moveTo(one, one.origin, 'redriven');
  }

  move(id: string, request: MoveMessageRequest): void {
    const { toQueue, queue } = readRequest(moveMessageRequest, request);
    this.messages.use(toQueue);
    const [one, ...others] = this.#owing(id, queue);
    if (others.length > 0)
      throw new RowmqError('invalid-request', `Several queues owe message ${id}; name one as queue.`);
    this.#moveTo(one as Delivery, toQueue, 'moved');
  }

  #moveTo(delivery: Delivery, queue: string, cause: MoveCause): void {
    const { protocol, queues } = this.messages;
    if (delivery.queue === queue || !queues.has(queue))
      throw new RowmqError('invalid-request', `Message ${delivery.id} has no queue to go to.`);
    if (queues.get(delivery.queue)?.ordering !== queues.get(queue)?.ordering)
      throw new RowmqError('invalid-request', `Message ${delivery.id} does not fit the ordering of queue '${queue}'.`);
    protocol.move(delivery, queue, cause);
    this.messages.wake();
  }

  /** The deliveries of a message in a queue, or in all. Throws `delivery-not-found`. */
  #owing(id: string, queue: string | undefined): Delivery[] {
    const { protocol } = this.messages;
    if (queue !== undefined) this.messages.use(queue);
    protocol.now = Date.now();
    const owing = protocol
      .copies(readRequest(messageIdText, id).toLowerCase())
      .filter((one) => queue === undefined || one.queue === queue);
    if (owing.length === 0) throw new RowmqError('delivery-not-found', `No queue owes message ${id}.`);
    return owing;
  }
}
