import { Inject, Injectable } from '@nestjs/common';
import {
  formatMessageId,
  messageBytes,
  type RunScheduleAnswer,
  type ScheduleAnswer,
  type ScheduleDefinition,
  type ScheduledMessage,
  type SchedulesAnswer,
  type SchedulesQuery,
  tickMessage,
} from '@rowmq/contract';
import { ScheduleRepository } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { orNull } from '../http/or-null.js';
import type { Caller } from '../http/caller.js';
import { formatTime } from '../messages/message.codec.js';
import { MessagesService } from '../messages/messages.service.js';
import { PublishService } from '../topics/publish.service.js';

type Schedule = Awaited<ReturnType<ScheduleRepository['get']>>;

/** Defines schedules. The reaper enqueues their messages. */
@Injectable()
export class SchedulesService {
  constructor(
    private readonly schedules: ScheduleRepository,
    private readonly messages: MessagesService,
    private readonly publishing: PublishService,
    @Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'sizes'>,
  ) {}

  /** Throws `queue-not-found`, `topic-not-found`, `message-too-large`, `invalid-request`. */
  async put(
    caller: Caller,
    name: string,
    definition: ScheduleDefinition,
  ): Promise<{ created: boolean; before: ScheduleAnswer | null; answer: ScheduleAnswer }> {
    mustReachTarget(caller, definition);
    const before = await orNull(this.schedules.get(name), 'schedule-not-found');
    if (before !== null) mustReachTarget(caller, before);
    // As large as any of its messages.
    messageBytes(tickMessage(name, definition.message, 0), 0, this.config.sizes);
    const { schedule, created } = await this.schedules.put(name, definition);
    return { created, before: before && toAnswer(before), answer: toAnswer(schedule) };
  }

  /** Throws `schedule-not-found`, as the following calls do. */
  async get(caller: Caller, name: string): Promise<ScheduleAnswer> {
    const schedule = await this.schedules.get(name);
    mustReachTarget(caller, schedule);
    return toAnswer(schedule);
  }

  /** A page of the schedules that the caller reaches. It may be shorter than the limit. */
  async list(caller: Caller, { after = '', limit }: SchedulesQuery): Promise<SchedulesAnswer> {
    const { schedules, isLast } = await this.schedules.list(after, limit, caller.patterns);
    const reached = schedules.filter(({ queue, topic }) => caller.reaches((queue ?? topic) as string));
    return { schedules: reached.map(toAnswer), nextAfter: isLast ? null : (schedules.at(-1)?.name ?? null) };
  }

  /** Returns what it deleted. */
  async delete(caller: Caller, name: string): Promise<ScheduleAnswer> {
    const before = await this.schedules.get(name);
    mustReachTarget(caller, before);
    await this.schedules.delete(name);
    return toAnswer(before);
  }

  /**
   * Enqueues or publishes its message now, and leaves its ticks as they are. Throws as an enqueue
   * or a publish does.
   */
  async run(caller: Caller, name: string): Promise<RunScheduleAnswer> {
    const { queue, topic, message } = await this.schedules.get(name);
    mustReachTarget(caller, { queue, topic });
    const made = tickMessage(name, JSON.parse(message) as ScheduledMessage, Date.now());
    const { messages } = await (topic === null
      ? this.messages.enqueue(queue as string, [made], undefined, caller.name)
      : this.publishing.publish(topic, [made], undefined, caller.name));
    return { messageId: messages[0]?.id as string };
  }
}

/** A key that reaches the name of a schedule must also reach the queue or the topic behind it. */
function mustReachTarget(caller: Caller, { queue, topic }: { queue?: string | null; topic?: string | null }): void {
  caller.mustReach((queue ?? topic) as string);
}

function toAnswer({ message, nextAt, lastTickAt, lastMessageId, ...schedule }: Schedule): ScheduleAnswer {
  const { name, cron, everySeconds, timeZone, queue, topic, enabled, missed, createdAt, lastFailure } = schedule;
  return {
    name,
    cron,
    everySeconds,
    timeZone,
    queue,
    topic,
    message: JSON.parse(message) as ScheduledMessage,
    enabled,
    missed,
    createdAt: formatTime(createdAt),
    nextRunAt: nextAt === null ? null : formatTime(nextAt),
    lastRun:
      lastTickAt === null || lastMessageId === null
        ? null
        : { tick: formatTime(lastTickAt), messageId: formatMessageId(lastMessageId) },
    lastFailure,
  };
}
