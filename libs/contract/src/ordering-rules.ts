import { RowmqError } from './errors.js';
import { LIMITS } from './limits.js';
import type { QueueSettings } from './schemas.js';

type Ordering = QueueSettings['ordering'];

/**
 * Refuses settings that contradict the ordering of a queue.
 *
 * @param ordering the one that the change would leave
 * @param was the ordering of the queue that exists; undefined if the request creates it
 * @param deadLetterQueue its dead-letter queue, if the request names one
 */
export function checkOrdering(
  queue: string,
  ordering: Ordering,
  was: Ordering | undefined,
  deadLetterQueue?: { name: string; ordering: Ordering },
): void {
  if (was !== undefined && was !== ordering) {
    refuse(
      'ordering',
      `cannot change: queue '${queue}' was created with ordering ${JSON.stringify(was)}; create another queue and let its consumers finish this one`,
    );
  }
  if (deadLetterQueue !== undefined && deadLetterQueue.ordering !== ordering) {
    refuse(
      'deadLetterQueue',
      `must have the ordering of its queue: '${queue}' has ${JSON.stringify(ordering)}, and '${deadLetterQueue.name}' has ${JSON.stringify(deadLetterQueue.ordering)}`,
    );
  }
}

/**
 * Refuses a target to which messages of a queue cannot move. Messages of an ordered queue have
 * groups, which other queues do not know, and need them.
 */
export function checkTarget(
  queue: { name: string; ordering: Ordering },
  target: { name: string; ordering: Ordering },
): void {
  if (queue.name === target.name) refuse('toQueue', 'must be another queue than the one that the messages leave');
  if (queue.ordering !== target.ordering)
    refuse('toQueue', `must have the ordering of queue '${queue.name}', which is ${String(queue.ordering)}`);
}

function refuse(path: string, message: string): never {
  throw new RowmqError('invalid-request', `${path} ${message}.`, { faults: [{ path, message }] });
}

/**
 * Refuses a message that does not fit the ordering of its queue.
 *
 * @param index the message's index in its request
 */
export function checkGroup(
  {
    groupId,
    priority,
    delaySeconds,
    availableAt,
  }: {
    groupId?: string | undefined;
    priority: number;
    delaySeconds?: number | undefined;
    availableAt?: unknown;
  },
  { name, ordering }: { name: string; ordering: Ordering },
  index: number,
): void {
  const at = `messages.${index}`;
  if (ordering === null) return;
  const inOrder = `in queue '${name}', which has ordering '${ordering}'`;
  if (groupId === undefined) refuse(`${at}.groupId`, `is missing ${inOrder}; name the group of the message`);
  if (priority !== LIMITS.priorityDefault)
    refuse(`${at}.priority`, `must be absent ${inOrder}: an urgent message would overtake its group`);
  if ((delaySeconds ?? 0) > 0)
    refuse(`${at}.delaySeconds`, `must be absent ${inOrder}: a delayed message would hold up its group`);
  if (availableAt !== undefined)
    refuse(`${at}.availableAt`, `must be absent ${inOrder}: a delayed message would hold up its group`);
}
