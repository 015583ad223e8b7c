import type { MessageMove, MoveCause } from '@rowmq/contract';
import { type Delivery, keyOf } from './lease-protocol.js';

/** A delivery keeps its first move and so many of the last ones, as in a broker. */
const LAST_MOVES = 3;

export interface MemoryMove extends Omit<MessageMove, 'at'> {
  at: number;
}

/** How the deliveries of an `InMemoryBroker` came from queue to queue. */
export class MemoryMoves {
  /** By delivery, its moves, oldest first. */
  readonly #moves = new Map<string, MemoryMove[]>();

  add(delivery: Readonly<Delivery>, cause: MoveCause, reason: string | null, at: number): void {
    const { queue: from, receiveCount } = delivery;
    const move = { from, at, cause, receiveCount, reason };
    const [first, ...others] = this.#moves.get(keyOf(delivery)) ?? [];
    const moves = first === undefined ? [move] : [first, ...[...others, move].slice(-LAST_MOVES)];
    this.#moves.set(keyOf(delivery), moves);
  }

  of(delivery: Readonly<Delivery>): readonly MemoryMove[] {
    return this.#moves.get(keyOf(delivery)) ?? [];
  }

  /** Gives the last move its reason, which the broker learns with the nack. */
  setReason(delivery: Readonly<Delivery>, reason: string): void {
    const last = this.#moves.get(keyOf(delivery))?.at(-1);
    if (last !== undefined) last.reason = reason;
  }

  forgetQueue(queue: string): void {
    for (const move of [...this.#moves.values()].flat()) if (move.from === queue) move.from = null;
  }

  /** Forgets the deliveries that are settled. */
  keep(owed: ReadonlyMap<string, Delivery>): void {
    for (const key of this.#moves.keys()) if (!owed.has(key)) this.#moves.delete(key);
  }
}
