import type { Attention, MoveCause } from '@rowmq/contract';
import { clock, duration, number, plural } from './format.js';

/** How loudly a page says it. */
export type Severity = 'bad' | 'warn' | 'note';

const SEVERITIES: Record<Attention['kind'], Severity> = {
  'database-slow': 'bad',
  'no-reaper': 'bad',
  'no-consumer': 'bad',
  'nearly-full': 'bad',
  behind: 'warn',
  paused: 'warn',
  'producers-paused': 'warn',
  failing: 'warn',
  expired: 'warn',
  'schedule-failed': 'warn',
  'dead-letters': 'note',
};

export function severityOf({ kind }: Attention): Severity {
  return SEVERITIES[kind];
}

/** Why a message left a queue, behind `because`. */
export const CAUSES: Record<MoveCause, string> = {
  'max-receives': 'it was handed out too often',
  rejected: 'a consumer rejected it',
  expired: 'it expired',
  redriven: 'it was redriven',
  moved: 'an operator moved it',
};

type Facts = Attention & { messages: string; age: string };

const SENTENCES: Record<Attention['kind'], (facts: Facts) => string> = {
  'database-slow': () => 'The database is slow: the reaper waits, and brokers may refuse enqueues.',
  'no-reaper': () => 'No reaper runs: schedules do not tick, and disk space does not come back.',
  'no-consumer': ({ since, messages, age }) =>
    `oldest message ${age}, no consumer ${since === null ? 'in the last hour' : `since ${clock(since)}`} (${messages} ready)`,
  'nearly-full': ({ messages, limit }) => `nearly full: ${messages}, and the limit is ${number(limit ?? 0)}`,
  behind: ({ messages, age }) => `oldest message ${age}: consumers fall behind (${messages} ready)`,
  paused: ({ count, messages, age }) =>
    count === 0 ? 'paused for consumers' : `paused for consumers, ${messages} ready, oldest ${age}`,
  'producers-paused': () => 'paused for producers: enqueues are refused',
  failing: ({ count }) => `${plural(count ?? 0, 'failure')} in the last hour, at least a tenth of the hand-outs`,
  expired: ({ messages }) => `${messages} expired in the last hour`,
  'schedule-failed': ({ detail }) => `schedule failed: ${detail ?? 'for an unknown reason'}`,
  'dead-letters': ({ count }) => plural(count ?? 0, 'dead letter'),
};

/** A reason to look, as a sentence that goes behind the name of the queue or schedule. */
export function sentence(reason: Attention): string {
  const { kind, count, seconds } = reason;
  return SENTENCES[kind]({ ...reason, messages: plural(count ?? 0, 'message'), age: duration(seconds ?? 0) });
}
