import type { MoveCause } from '@rowmq/contract';
import type { Delivery } from './delivery.js';

/** One move of messages to another queue. */
export interface Move {
  /** The queue that they left. */
  from: number;
  /** ms since 1970, on the database's clock. */
  at: number;
  cause: MoveCause;
  /** The number of hand-outs since the last move. */
  receives: number;
  /** The reason of the last nack, or the operator's. */
  reason: string | null;
}

/**
 * A delivery keeps its first move and so many of the last ones. The first one says where the
 * messages come from, and the last ones why they are here.
 */
const LAST_KEPT = 3;

/** The moves of a delivery, oldest first. */
export function readMoves(moves: string | null): Move[] {
  return moves === null ? [] : (JSON.parse(moves) as Move[]);
}

/** The column `moves` after one more move: a JSON array of {@link Move}. */
export function withMove(moves: string | null, move: Move): string {
  const [first, ...others] = [...readMoves(moves), move];
  return JSON.stringify([first, ...others.slice(-LAST_KEPT)]);
}

/** How messages came to a dead-letter queue. */
export interface DeadLettering {
  /** The hand-outs before. */
  receives: number;
  /** The queue that they left last. */
  sourceQueueId: number;
}

/** Undefined: the last move was none to a dead-letter queue. A redrive begins a new count. */
export function deadLetteringOf(moves: string | null): DeadLettering | undefined {
  const all = readMoves(moves);
  const last = all.at(-1);
  if (last === undefined || !isDeadLettering(last)) return undefined;
  const begin = all.findLastIndex((move) => !isDeadLettering(move)) + 1;
  const receives = all.slice(begin).reduce((sum, move) => sum + move.receives, 0);
  return { receives, sourceQueueId: last.from };
}

function isDeadLettering({ cause }: Move): boolean {
  return cause !== 'redriven' && cause !== 'moved';
}

/** When a delivery came to its queue. Its producer sent it there: 0. */
export function arrivedAt({ moves }: Pick<Delivery, 'moves'>): number {
  return readMoves(moves).at(-1)?.at ?? 0;
}
