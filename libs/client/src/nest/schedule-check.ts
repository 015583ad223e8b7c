import { putScheduleRequest, type PutScheduleRequest, readRequest, scheduleName } from '@rowmq/contract';
import type { BrokerClient } from '../broker-client.js';
import type { BootStep } from './boot-check.js';
import type { ScheduledOptions } from './decorators.js';
import type { BoundConsumer } from './queues.service.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';

/** A schedule as `@Scheduled` defines it, and where. */
interface NeededSchedule {
  name: string;
  place: string;
  definition: PutScheduleRequest;
}

/**
 * The steps that register the schedules of an application's consumers at boot, or update them. A
 * broker refuses a schedule whose queue is missing, so the queues come first.
 * @throws RowmqConfigurationError for a schedule that cannot work
 */
export async function scheduleSteps(client: BrokerClient, consumers: readonly BoundConsumer[]): Promise<BootStep[]> {
  return (await neededBy(consumers)).map((schedule) => ({
    notYet: `Schedule '${schedule.name}' could not be registered yet`,
    run: async (options) => {
      await client.putSchedule(schedule.name, schedule.definition, options);
    },
    asFault: (error) => asFault(schedule, error),
  }));
}

/** The schedules of consumers. Checks them as a broker does, so that a fault shows without one. */
async function neededBy(consumers: readonly BoundConsumer[]): Promise<NeededSchedule[]> {
  const needed = new Map<string, NeededSchedule>();
  for (const { className, registered, schedules } of consumers) {
    for (const { method, options } of schedules) {
      const { name } = options;
      const place = `${className}.${method}`;
      const other = needed.get(name);
      if (other !== undefined) {
        throw new RowmqConfigurationError(
          `${other.place} and ${place} both define schedule '${name}', and one would replace the other. Give each schedule a name of its own.`,
        );
      }
      const definition = await define(options, registered).catch((error: unknown) => {
        throw asFault({ name, place }, error);
      });
      needed.set(name, { name, place, definition });
    }
  }
  return [...needed.values()];
}

async function define(
  { name, payload = null, headers, priority, expiresInSeconds, ...times }: ScheduledOptions,
  { name: queue, codec }: BoundConsumer['registered'],
): Promise<PutScheduleRequest> {
  readRequest(scheduleName, name);
  const body = await codec.encode(payload);
  const definition = { ...times, queue, message: { ...body, headers, priority, expiresInSeconds } };
  readRequest(putScheduleRequest, definition);
  return definition;
}

function asFault({ name, place }: Pick<NeededSchedule, 'name' | 'place'>, cause: unknown): RowmqConfigurationError {
  const why = (cause as Error).message;
  return new RowmqConfigurationError(`${place} defines schedule '${name}', which cannot be used: ${why}`, { cause });
}
