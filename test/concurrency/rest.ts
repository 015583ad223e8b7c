import type { Queue } from '@rowmq/store';
import type { TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

const DEADLINE_MS = 120_000;

/**
 * Dequeues and acks the messages that a test left in a queue when its time ended on a slow machine.
 * Returns the acked ids in hexadecimal.
 */
export async function ackRest({ messages, unleased }: TestStore, queue: Queue): Promise<string[]> {
  const acked: string[] = [];
  await eventually(
    'the remaining messages are acked',
    async () => {
      const leased = await messages.dequeue(queue, { maxMessages: 200, leaseSeconds: 600 });
      const outcomes = await messages.ack(queue.id, leased);
      acked.push(
        ...leased.flatMap(({ messageId }, index) => (outcomes[index] === null ? messageId.toString('hex') : [])),
      );
      return leased.length === 0 && (await unleased.lastId(queue.id)) === null;
    },
    DEADLINE_MS,
  );
  return acked;
}
