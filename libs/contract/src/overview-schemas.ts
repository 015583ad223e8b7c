import { z } from 'zod';
import { LIMITS } from './limits.js';
import { queueName, queueStats, timestamp } from './schemas.js';

/* All queues at a glance, for a page that is open the whole day. */

/** The orders of an overview's queues. */
export const OVERVIEW_SORTS = ['name', 'ready', 'delayed', 'leased', 'oldest', 'in', 'out', 'failed'] as const;

export const overviewQuery = z.strictObject({
  search: z.string().max(80).optional().meta({ description: 'Only queues whose name contains this text' }),
  sort: z.enum(OVERVIEW_SORTS).default('name'),
  order: z.enum(['asc', 'desc']).default('asc'),
  offset: z.coerce.number().int().min(0).max(1_000_000).default(0),
  limit: z.coerce.number().int().min(1).max(LIMITS.page).default(50),
});

const perSecond = z.number().min(0);
const count = z.int().min(0);

export const overviewQueue = z.object({
  name: queueName,
  paused: z.boolean(),
  producersPaused: z.boolean(),
  deadLettersOf: z.array(queueName).meta({ description: 'The queues whose dead-letter queue it is, up to ten' }),
  stats: queueStats.omit({ errorBound: true }),
  in: perSecond.meta({ description: 'Messages a second that were enqueued in the last minute' }),
  out: perSecond.meta({ description: 'Messages a second that were acked in the last minute' }),
  failedLastHour: count.meta({ description: 'Nacked or dead-lettered' }),
  hour: z
    .array(z.object({ in: count, out: count, failed: count }))
    .meta({ description: 'The last hour in stretches of five minutes, oldest first' }),
});

/** Reasons for which somebody should look, the most urgent first. */
export const ATTENTION_KINDS = [
  'database-slow',
  'no-reaper',
  'no-consumer',
  'nearly-full',
  'behind',
  'paused',
  'producers-paused',
  'failing',
  'expired',
  'schedule-failed',
  'dead-letters',
] as const;

export const attention = z.object({
  kind: z.enum(ATTENTION_KINDS),
  name: z.string().nullable().meta({ description: 'The queue or the schedule; null: the whole broker' }),
  count: count.nullable().meta({ description: 'Messages that it concerns' }),
  limit: count.nullable().meta({ description: "nearly-full: the queue's maxDepth" }),
  seconds: z.number().nullable().meta({ description: 'Age of the oldest ready message' }),
  since: timestamp.nullable().meta({ description: 'no-consumer: the last hand-out within the last hour; null: none' }),
  detail: z.string().nullable().meta({ description: 'schedule-failed: the reason' }),
});

export const overviewAnswer = z.object({
  at: timestamp.meta({ description: 'When the counts were made, by the clock of the database' }),
  attention: z.array(attention).meta({ description: 'The most urgent first, up to 50' }),
  attentionTotal: count,
  totals: z.object({
    queues: count,
    ready: count,
    delayed: count,
    leased: count,
    waiting: count,
    in: perSecond,
    out: perSecond,
    failedLastHour: count,
  }),
  matched: count.meta({ description: 'Queues that the search selects' }),
  queues: z.array(overviewQueue),
});

export type OverviewQuery = z.output<typeof overviewQuery>;
export type OverviewQueue = z.output<typeof overviewQueue>;
export type OverviewSort = (typeof OVERVIEW_SORTS)[number];
export type AttentionKind = (typeof ATTENTION_KINDS)[number];
export type Attention = z.output<typeof attention>;
export type OverviewAnswer = z.output<typeof overviewAnswer>;
