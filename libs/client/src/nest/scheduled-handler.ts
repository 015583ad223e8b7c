import { type LeasedMessage, SCHEDULE_HEADER } from '@rowmq/contract';
import type { Handler } from '../consumer/handling.js';
import type { ScheduledOptions } from './decorators.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';

/** A method with `@Scheduled`. */
export interface FoundSchedule {
  method: string;
  options: ScheduledOptions;
  call: (...args: unknown[]) => unknown;
}

/**
 * The handler of a consumer's class: each tick goes to the method of its schedule, and every other
 * message to the handler of messages.
 * @throws {@link RowmqConfigurationError} for a batch handler, which would get both mixed
 */
export function withSchedules(
  className: string,
  handler: Handler<unknown> | undefined,
  schedules: readonly FoundSchedule[],
): Handler<unknown> {
  if (schedules.length === 0 && handler !== undefined) return handler;
  if (handler !== undefined && 'batch' in handler) {
    throw new RowmqConfigurationError(
      `${className} has @OnBatch() and @Scheduled, but a batch would mix ticks with other messages. Use @OnMessage(), or give the schedule a queue and a consumer of its own.`,
    );
  }
  const byName = new Map(schedules.map((schedule) => [schedule.options.name, schedule]));
  return {
    message: (payload, message) => {
      const schedule = scheduleOf(message);
      const call = (schedule === undefined ? undefined : byName.get(schedule)?.call) ?? handler?.message;
      if (call !== undefined) return call(payload, message);
      const what = schedule === undefined ? 'messages of no schedule' : `schedule '${schedule}'`;
      throw new Error(`${className} has no method for ${what}: mark one with @OnMessage(), or delete the schedule.`);
    },
  };
}

function scheduleOf({ headers }: Pick<LeasedMessage, 'headers'>): string | undefined {
  return headers[SCHEDULE_HEADER];
}
