import type { Queue, Reservation } from '@rowmq/store';
import type { WaitingConsumers } from './waiting-consumers.js';

const NONE: ReadonlyMap<string, number> = new Map();

/**
 * The messages that one batch offers to parked consumers before it commits. Afterwards it wakes
 * consumers for those that nobody took.
 */
export class Offer {
  /** By queue. A batch that is tried again offers its messages again. */
  private readonly available = new Map<string, number>();
  private readonly handedOff = new Map<string, number>();

  constructor(private readonly consumers: WaitingConsumers) {}

  /** Reserves parked consumers of a queue for so many messages. */
  reserve(queue: Queue, messages: number): Reservation[] {
    this.available.set(queue.name, messages);
    return this.consumers.reserve(queue, messages).map((reservation) => ({
      ...reservation,
      handOff: (leased) => {
        this.handedOff.set(queue.name, (this.handedOff.get(queue.name) ?? 0) + leased.length);
        reservation.handOff(leased);
      },
    }));
  }

  /**
   * The batch stored messages in these queues.
   *
   * @param unoffered counts those that were not offered, because their queues have an order
   */
  wakeOthers(queueNames: Iterable<string>, unoffered: ReadonlyMap<string, number> = NONE): void {
    for (const queueName of new Set(queueNames)) {
      const available = this.available.get(queueName) ?? unoffered.get(queueName) ?? 0;
      const left = available - (this.handedOff.get(queueName) ?? 0);
      if (left > 0) this.consumers.wake(queueName, left);
    }
  }
}
