import type { QueueAnswer } from '@rowmq/contract';
import { UsageError } from '../exit-codes.js';
import type { Column, Output } from '../output/output.js';
import { age, rate } from '../output/units.js';

/** The columns of `queue list` and `stats`. */
export function queueColumns(out: Output): Column<QueueAnswer>[] {
  const alert = (text: string, isBad: boolean): string => (isBad ? out.paint.yellow(text) : text);
  return [
    { title: 'QUEUE', of: ({ name }) => name },
    { title: 'READY', of: ({ stats }) => stats.ready, right: true },
    { title: 'DELAYED', of: ({ stats }) => stats.delayed, right: true },
    { title: 'LEASED', of: ({ stats }) => stats.leased, right: true },
    { title: 'WAITING', of: ({ stats }) => stats.waiting, right: true },
    {
      title: 'OLDEST',
      of: ({ stats }) => age(stats.oldestReadyAgeSeconds),
      right: true,
      paint: (text, { stats }) => alert(text, (stats.oldestReadyAgeSeconds ?? 0) > 60),
    },
    { title: 'IN/S', of: (queue) => rate(minute(queue).in), right: true },
    { title: 'OUT/S', of: (queue) => rate(minute(queue).out), right: true },
    {
      title: 'FAILED/S',
      of: (queue) => rate(minute(queue).failed),
      right: true,
      paint: (text, queue) => alert(text, minute(queue).failed > 0),
    },
    { title: 'STATE', of: stateOf, paint: (text, queue) => alert(text, stateOf(queue) !== '') },
  ];
}

/** The rates of the last minute. */
export function minute({ rates }: QueueAnswer): { in: number; out: number; failed: number } {
  return rates.find(({ minutes }) => minutes === 1) ?? { in: 0, out: 0, failed: 0 };
}

function stateOf({ paused, producersPaused }: QueueAnswer): string {
  if (paused && producersPaused) return 'paused';
  if (paused) return 'consumers paused';
  return producersPaused ? 'producers paused' : '';
}

const KEYS = {
  name: () => 0,
  ready: ({ stats }: QueueAnswer) => stats.ready,
  delayed: ({ stats }: QueueAnswer) => stats.delayed,
  leased: ({ stats }: QueueAnswer) => stats.leased,
  age: ({ stats }: QueueAnswer) => stats.oldestReadyAgeSeconds ?? 0,
  in: (queue: QueueAnswer) => minute(queue).in,
  out: (queue: QueueAnswer) => minute(queue).out,
  failed: (queue: QueueAnswer) => minute(queue).failed,
};
export const SORTS = Object.keys(KEYS);

/** By name, or the largest first. */
export function sortQueues(queues: readonly QueueAnswer[], by: string): QueueAnswer[] {
  if (!Object.hasOwn(KEYS, by)) throw new UsageError(`'${by}' is no column to sort by. Choose ${SORTS.join(', ')}.`);
  const key = KEYS[by as keyof typeof KEYS];
  return queues.toSorted((one, other) => key(other) - key(one) || (one.name < other.name ? -1 : 1));
}

/** Whether a name matches a pattern, in which a star stands for any characters. */
export function matchesGlob(name: string, pattern: string): boolean {
  const parts = pattern.split('*').map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`).test(name);
}
