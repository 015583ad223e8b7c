import { RowmqError } from './errors.js';

/**
 * Refuses a limit of receives without a dead-letter queue. Messages that were received too often
 * would have nowhere to go, and would be handed out for ever.
 */
export function checkMaxReceives(queue: string, maxReceives: number | null, hasDeadLetterQueue: boolean): void {
  if (maxReceives === null || hasDeadLetterQueue) return;
  const message = 'needs a deadLetterQueue, to which messages move that were received too often';
  throw new RowmqError(
    'invalid-request',
    `maxReceives ${message}. Name one for queue '${queue}', or set maxReceives to null.`,
    { faults: [{ path: 'maxReceives', message }] },
  );
}

/** Refuses to keep expired messages without a dead-letter queue. They would have nowhere to go. */
export function checkDeadLetterExpired(queue: string, deadLetterExpired: boolean, hasDeadLetterQueue: boolean): void {
  if (!deadLetterExpired || hasDeadLetterQueue) return;
  const message = 'needs a deadLetterQueue, to which messages move that have expired';
  throw new RowmqError(
    'invalid-request',
    `deadLetterExpired ${message}. Name one for queue '${queue}', or set deadLetterExpired to false.`,
    { faults: [{ path: 'deadLetterExpired', message }] },
  );
}

/**
 * Refuses a dead-letter queue whose own dead letters come back. A message that fails everywhere
 * would move for ever, and nobody would see it as dead.
 * @param queue the queue to change
 * @param path its new dead-letter queue, the dead-letter queue of that one, and so on
 */
export function checkDeadLetterPath(queue: string, path: readonly string[]): void {
  const end = path.indexOf(queue);
  if (end < 0) return;
  const message =
    end === 0
      ? 'must be another queue: a queue cannot be its own dead-letter queue'
      : `would send dead letters round in a circle: ${[queue, ...path.slice(0, end + 1)].join(' → ')}`;
  throw new RowmqError('invalid-request', `deadLetterQueue ${message}. Name another queue, or null.`, {
    faults: [{ path: 'deadLetterQueue', message }],
  });
}
