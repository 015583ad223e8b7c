import { ATTENTION_KINDS, type Attention } from '@rowmq/contract';
import type { DeliveryStats, Queue, QueueHour } from '@rowmq/store';
import { formatTime } from '../messages/message.codec.js';

/** A message that waits this long while nobody takes any is worth a look. */
const NO_CONSUMER_SECONDS = 60;
/** The same while consumers take messages. */
const BEHIND_SECONDS = 300;
/** Part of `maxDepth`. */
const NEARLY_FULL = 0.8;
/** Part of the hand-outs of the last hour, and the least number of failures. */
const FAILING = 0.1;
const LEAST_FAILED = 10;

/** A queue, and all that the rules look at. */
export interface Observed {
  readonly queue: Queue;
  readonly stats: DeliveryStats;
  readonly hour: QueueHour;
  /** Names of the queues whose dead-letter queue it is. */
  readonly deadLettersOf: readonly string[];
}

const NOTHING = { name: null, count: null, limit: null, seconds: null, since: null, detail: null };

/** A reason that concerns the whole broker. */
export function ofBroker(kind: Attention['kind']): Attention {
  return { ...NOTHING, kind };
}

/** A schedule whose tick failed. */
export function ofSchedule(name: string, detail: string): Attention {
  return { ...NOTHING, kind: 'schedule-failed', name, detail };
}

/** The reasons for which somebody should look at a queue. */
export function ofQueue({ queue, stats, hour, deadLettersOf }: Observed, now: number): Attention[] {
  const found: Attention[] = [];
  const add = (kind: Attention['kind'], facts: Partial<Attention> = {}): void =>
    void found.push({ ...NOTHING, kind, name: queue.name, ...facts });
  const { ready } = stats;
  const seconds = stats.oldestReadyAgeSeconds ?? 0;
  const depth = ready + stats.delayed + stats.leased + stats.waiting;
  if (queue.maxDepth !== null && depth >= queue.maxDepth * NEARLY_FULL)
    add('nearly-full', { count: depth, limit: queue.maxDepth });
  if (queue.producersPaused) add('producers-paused');
  // Messages of a dead-letter queue wait for a person.
  if (deadLettersOf.length > 0) {
    if (depth > 0) add('dead-letters', { count: depth, seconds });
  } else if (queue.paused) {
    add('paused', { count: ready, seconds });
  } else if (ready > 0) {
    const { lastDequeueAt } = hour;
    const isTaken = lastDequeueAt !== null && lastDequeueAt > now - NO_CONSUMER_SECONDS * 1000;
    const since = lastDequeueAt === null ? null : formatTime(Math.min(lastDequeueAt, now));
    if (!isTaken && seconds >= NO_CONSUMER_SECONDS) add('no-consumer', { count: ready, seconds, since });
    else if (seconds >= BEHIND_SECONDS) add('behind', { count: ready, seconds });
  }
  if (hour.failed >= LEAST_FAILED && hour.failed >= hour.dequeued * FAILING) add('failing', { count: hour.failed });
  if (hour.expired > 0 && deadLettersOf.length === 0) add('expired', { count: hour.expired });
  return found;
}

/** The most urgent first, and of the same kind what has waited longest. */
export function byUrgency(one: Attention, other: Attention): number {
  return (
    ATTENTION_KINDS.indexOf(one.kind) - ATTENTION_KINDS.indexOf(other.kind) ||
    (other.seconds ?? 0) - (one.seconds ?? 0) ||
    (other.count ?? 0) - (one.count ?? 0) ||
    (one.name ?? '').localeCompare(other.name ?? '')
  );
}
