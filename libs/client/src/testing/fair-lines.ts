import { FairLine } from '@rowmq/contract';
import type { Delivery } from './lease-protocol.js';

/** Fairness among groups in queues without ordering, as in a broker: see {@link FairLine}. */
export class FairLines {
  readonly #lines = new Map<string, FairLine>();

  /** Gives a new delivery with a group its place among those that its queue owes. */
  place(delivery: Delivery, groupId: string, owed: readonly Delivery[], now: number): void {
    const { queue, priority } = delivery;
    if (delivery.availableAt > now) return;
    const key = `${queue} ${priority}`;
    const line = this.#lines.get(key) ?? new FairLine();
    this.#lines.set(key, line);
    const ready = owed.filter((one) => one.priority === priority && one.availableAt <= now);
    const places = ready.map(({ availableAt }) => availableAt).filter((place) => place >= line.head);
    delivery.availableAt = line.place(groupId, places.length === 0 ? undefined : Math.min(...places), now);
  }

  forgetQueue(queue: string): void {
    for (const key of this.#lines.keys()) if (key.startsWith(`${queue} `)) this.#lines.delete(key);
  }
}
