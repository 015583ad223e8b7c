import { z } from 'zod';
import { LIMITS } from './limits.js';
import { messageFields, messageIdText, queueName, timestamp } from './schemas.js';
import { cronFault, isTimeZone } from './ticks.js';

/* Requests and answers about schedules. */

/** The headers that a schedule adds to its messages: its name, and the instant of the tick. */
export const SCHEDULE_HEADER = 'rowmq-schedule';
export const TICK_HEADER = 'rowmq-tick';

export const scheduleName = queueName.meta({ example: 'nightly-report', description: 'Name of a schedule' });

const tickFields = messageFields.omit({ availableAt: true, deduplicationId: true });

/** A message that a schedule enqueues. */
export const scheduledMessage = tickFields
  .refine(({ headers = {} }) => Object.keys(headers).length <= LIMITS.headerEntries - 2, {
    path: ['headers'],
    message: `must have at most ${LIMITS.headerEntries - 2} entries: a schedule adds ${SCHEDULE_HEADER} and ${TICK_HEADER}`,
  })
  .refine(({ headers = {} }) => !(SCHEDULE_HEADER in headers) && !(TICK_HEADER in headers), {
    path: ['headers'],
    message: `must not have ${SCHEDULE_HEADER} or ${TICK_HEADER}, which the schedule adds`,
  });

const cron = z
  .string()
  .max(LIMITS.cronChars)
  .superRefine((pattern, context) => {
    const message = cronFault(pattern);
    if (message !== undefined) context.addIssue({ code: 'custom', message });
  })
  .meta({
    description: 'Five fields, or six with seconds first, or a nickname such as @daily. In place of everySeconds',
    example: '30 3 * * *',
  });
const everySeconds = z.int().min(1).max(LIMITS.aheadSeconds).meta({
  description: 'The ticks are the multiples of this time since 1970. In place of cron',
  example: 300,
});
const timeZone = z
  .string()
  .max(LIMITS.timeZoneChars)
  .refine(isTimeZone, 'must be a time zone of the IANA database, such as Europe/Berlin')
  .meta({ description: 'The IANA time zone of cron; UTC when absent', example: 'Europe/Berlin' });
const missed = z.enum(['skip', 'last', 'all']).meta({
  description:
    'What becomes of ticks that nobody enqueued for a minute: none, the last one, or those of the last 24 hours',
});

export const putScheduleRequest = z
  .strictObject({
    cron: cron.optional(),
    everySeconds: everySeconds.optional(),
    timeZone: timeZone.optional(),
    queue: queueName
      .optional()
      .meta({ description: 'The queue to which it enqueues; it must exist', example: 'reports' }),
    topic: queueName.optional().meta({
      description: 'In place of queue: the topic to which it publishes; it must exist',
      example: 'order-events',
    }),
    message: scheduledMessage,
    enabled: z.boolean().default(true),
    missed: missed.default('skip'),
  })
  .refine((request) => (request.cron === undefined) !== (request.everySeconds === undefined), {
    path: ['cron'],
    message: 'must be there, or everySeconds, but not both',
  })
  .refine((request) => (request.queue === undefined) !== (request.topic === undefined), {
    path: ['queue'],
    message: 'must be there, or topic, but not both',
  })
  .refine((request) => request.timeZone === undefined || request.cron !== undefined, {
    path: ['timeZone'],
    message: 'must be absent without cron: everySeconds counts from 1970, in no time zone',
  })
  .meta({
    example: {
      cron: '30 3 * * *',
      timeZone: 'Europe/Berlin',
      queue: 'reports',
      message: { body: '{"report":"daily"}' },
    },
  });

export const scheduleAnswer = z.object({
  name: scheduleName,
  cron: z.string().nullable().meta({ example: '30 3 * * *' }),
  everySeconds: z.int().nullable().meta({ example: null }),
  timeZone: z.string().nullable().meta({ example: 'Europe/Berlin' }),
  queue: queueName.nullable().meta({ example: 'reports' }),
  topic: queueName.nullable().meta({ example: null }),
  message: tickFields,
  enabled: z.boolean(),
  missed,
  createdAt: timestamp,
  nextRunAt: timestamp.nullable().meta({ description: 'The next tick; null if the schedule is not enabled' }),
  lastRun: z
    .object({ tick: timestamp, messageId: messageIdText })
    .nullable()
    .meta({ description: 'The last tick that was enqueued, and its message; null if there was none' }),
  lastFailure: z
    .string()
    .nullable()
    .meta({ description: 'Why the tick that is due could not be enqueued; null after a success', example: null }),
});

export const schedulesQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(LIMITS.page).default(LIMITS.page),
  after: scheduleName.optional().meta({ description: 'The nextAfter of the previous page' }),
});
export const schedulesAnswer = z.object({
  schedules: z.array(scheduleAnswer),
  nextAfter: scheduleName
    .nullable()
    .meta({ description: 'Send it as after to get the next page; null on the last page' }),
});

export const runScheduleAnswer = z.object({ messageId: messageIdText });

export type ScheduledMessage = z.output<typeof scheduledMessage>;
export type PutScheduleRequest = z.input<typeof putScheduleRequest>;
/** A request with its defaults. */
export type ScheduleDefinition = z.output<typeof putScheduleRequest>;
export type ScheduleAnswer = z.output<typeof scheduleAnswer>;
export type SchedulesQuery = z.output<typeof schedulesQuery>;
export type SchedulesAnswer = z.output<typeof schedulesAnswer>;
export type RunScheduleAnswer = z.output<typeof runScheduleAnswer>;

/** The message of one tick, or of a run by hand at an instant. */
export function tickMessage(schedule: string, message: ScheduledMessage, tick: number): ScheduledMessage {
  const added = { [SCHEDULE_HEADER]: schedule, [TICK_HEADER]: new Date(tick).toISOString() };
  return { ...message, headers: { ...message.headers, ...added } };
}
