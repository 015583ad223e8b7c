import { expect, test } from 'vitest';
import { IdlePoll, type IdleQueue } from './idle-poll.js';

test('the poll goes on, however many queues there are', async () => {
  let polls = 0;
  const poll = new IdlePoll<IdleQueue>(
    { poll: async () => new Set() },
    { getAll: async () => new Map() },
    { onReady: () => undefined, onGone: () => (polls += 1) },
  );
  const pollIsDue = (): boolean => true;
  // More than a function takes as arguments.
  for (let index = 0; index < 200_000; index += 1) poll.add({ queueName: `q${index}`, pauseMs: 20, pollIsDue });
  await expect.poll(() => polls).toBeGreaterThan(1000);
  poll.close();
});
