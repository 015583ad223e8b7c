import type { DequeueAnswer, FailedReceipt } from '@rowmq/contract';
import type { Delivery } from './message.js';
import { ConsumerStoppedError } from './outcomes.js';

export interface CarriedAcksEvents {
  /** The broker has answered for these acks. */
  onAnswer(deliveries: readonly Delivery[], failed: readonly FailedReceipt[]): void;
  /** The dequeue failed. The broker may have settled the acks before. */
  onFailure(error: unknown, deliveries: readonly Delivery[]): Promise<void>;
  /** The consumer stopped and no longer waits for the dequeue. */
  onGivenUp(deliveries: readonly Delivery[]): void;
}

/**
 * Acks that a dequeue carries. They save a request, and the broker settles them before it waits for
 * messages. Only its answer comes after the wait. The consumer holds the deliveries until then, and
 * extends their leases: if the connection is dead, the acks are sent again under the same leases.
 */
export class CarriedAcks {
  readonly #unanswered = new Set<Promise<void>>();
  readonly #events: CarriedAcksEvents;

  constructor(events: CarriedAcksEvents) {
    this.#events = events;
  }

  /** Sends a dequeue with these acks. Returns its answer, or throws its failure. */
  send(
    deliveries: readonly Delivery[],
    dequeue: (receipts: string[]) => Promise<DequeueAnswer>,
  ): Promise<DequeueAnswer> {
    const answer = dequeue(deliveries.map(({ message }) => message.receipt));
    if (deliveries.length > 0) {
      const settled = this.#settle(deliveries, answer).finally(() => this.#unanswered.delete(settled));
      this.#unanswered.add(settled);
    }
    return answer;
  }

  /** Resolves when all are answered, or handed back after a failure. Never rejects. */
  async flush(): Promise<void> {
    await Promise.all(this.#unanswered);
  }

  async #settle(deliveries: readonly Delivery[], answer: Promise<DequeueAnswer>): Promise<void> {
    try {
      const { failed } = await answer;
      if (failed === undefined) {
        throw new TypeError('The answer to a dequeue says nothing of the acks that it carried; update the broker.');
      }
      this.#events.onAnswer(deliveries, failed);
    } catch (error) {
      if (error instanceof ConsumerStoppedError) this.#events.onGivenUp(deliveries);
      else await this.#events.onFailure(error, deliveries);
    }
  }
}
