import type { MessageMove, MoveCause } from '@rowmq/contract';
import { type Delivery, keyOf } from './lease-protocol.js';

/** A delivery keeps its first move and so many of the last ones, as in a broker. */
const LAST_KEPT = 3;

interface MemoryMove extends Omit<MessageMove, 'at'> {
  /** ms since 1970. */
  at: number;
}

/** When and why each delivery of an `InMemoryBroker` moved, oldest first. */
export class MemoryMoves {
  readonly #moves = new Map<string, MemoryMove[]>();

  /** The delivery is about to move. */
  note(delivery: Readonly<Delivery>, at: number, cause: MoveCause, reason: string | null): void {
    const { queue: from, receiveCount } = delivery;
    const move = { from, at, cause, receiveCount, reason };
    const [first, ...others] = this.of(delivery);
    const kept = first === undefined ? [move] : [first, ...[...others, move].slice(-LAST_KEPT)];
    this.#moves.set(keyOf(delivery), kept);
  }

  /** The last move was for this reason. */
  explain(delivery: Delivery, reason: string): void {
    const last = this.of(delivery).at(-1);
    if (last !== undefined) last.reason = reason;
  }

  of(delivery: Readonly<Delivery>): readonly MemoryMove[] {
    return this.#moves.get(keyOf(delivery)) ?? [];
  }

  forgetQueue(queue: string): void {
    for (const moves of this.#moves.values()) for (const move of moves) if (move.from === queue) move.from = null;
  }

  forgetSettled(owed: ReadonlyMap<string, Delivery>): void {
    for (const key of this.#moves.keys()) if (!owed.has(key)) this.#moves.delete(key);
  }
}
