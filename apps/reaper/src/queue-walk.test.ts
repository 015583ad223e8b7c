import { describe, expect, test } from 'vitest';
import type { Queue } from '@rowmq/store';
import { QueueWalk } from './queue-walk.js';

const signal = AbortSignal.abort();
const running = new AbortController().signal;

function queue(id: number): Queue {
  return { id, name: `queue-${id}` } as Queue;
}

function at(number: number): Buffer {
  return Buffer.from([number]);
}

describe('a walk over queues', () => {
  test('passes every queue, a stretch at a time, and sums up the counts', async () => {
    const steps: string[] = [];
    const count = await new QueueWalk().run([queue(1), queue(2)], running, async ({ id: queueId }, after) => {
      steps.push(`${queueId}:${after.toString('hex')}`);
      return { count: 10, next: after[0] === 2 ? null : at((after[0] ?? 0) + 1) };
    });
    const first = '00'.repeat(16);
    expect(steps).toEqual([`1:${first}`, '1:01', '1:02', `2:${first}`, '2:01', '2:02']);
    expect(count).toBe(60);
  });

  test('that is stopped does nothing more, and the next run continues there through all queues', async () => {
    const walk = new QueueWalk();
    const stopping = new AbortController();
    const steps: number[] = [];
    const step = async ({ id: queueId }: Queue, after: Buffer): Promise<{ count: number; next: Buffer | null }> => {
      steps.push(queueId);
      if (queueId === 2 && after.length === 16) stopping.abort();
      return { count: 1, next: queueId === 2 && after.length === 16 ? at(9) : null };
    };
    expect(await walk.run([queue(1), queue(2), queue(3)], stopping.signal, step)).toBe(2);
    expect(steps.splice(0)).toEqual([1, 2]);
    expect(await walk.run([queue(1), queue(2), queue(3)], signal, step)).toBe(0);
    expect(await walk.run([queue(1), queue(2), queue(3)], running, step)).toBe(3);
    expect(steps).toEqual([2, 3, 1]);
  });

  test('begins with the first queue if its last one is gone', async () => {
    const walk = new QueueWalk();
    await walk.run([queue(1), queue(2)], signal, async () => ({ count: 1, next: null }));
    const steps: number[] = [];
    await walk.run([queue(2), queue(3)], running, async ({ id: queueId }) => {
      steps.push(queueId);
      return { count: 0, next: null };
    });
    expect(steps).toEqual([2, 3]);
  });

  test('that fails at one queue continues with the next queue in the next run', async () => {
    const walk = new QueueWalk();
    const steps: number[] = [];
    const step = async ({ id: queueId }: Queue): Promise<{ count: number; next: null }> => {
      steps.push(queueId);
      if (queueId === 1) throw new Error('busy');
      return { count: 1, next: null };
    };
    await expect(walk.run([queue(1), queue(2), queue(3)], running, step)).rejects.toThrow('busy');
    await expect(walk.run([queue(1), queue(2), queue(3)], running, step)).rejects.toThrow('busy');
    expect(steps).toEqual([1, 2, 3, 1]);
  });
});
