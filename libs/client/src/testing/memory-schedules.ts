import {
  dueTicks,
  messageBytes,
  nextTick,
  putScheduleRequest,
  type PutScheduleRequest,
  readRequest,
  RowmqError,
  type RunScheduleAnswer,
  type ScheduleAnswer,
  type ScheduledMessage,
  scheduleName,
  type SchedulesAnswer,
  schedulesQuery,
  type SchedulesQuery,
  type SizeLimits,
  tickMessage,
} from '@rowmq/contract';

/** A timer fires at once if it is set for longer than this. */
const LONGEST_TIMER_MS = 2_147_483_647;

interface MemorySchedule extends Omit<ScheduleAnswer, 'createdAt' | 'nextRunAt'> {
  createdAt: number;
  nextAt: number | null;
}

/** Stores a message in a queue or a topic. Returns its id, or throws `RowmqError`. */
type Send = (target: Pick<ScheduleAnswer, 'queue' | 'topic'>, message: ScheduledMessage) => Promise<string>;

/** The schedules of an in-memory broker. A timer runs them, also a fake one. */
export class MemorySchedules {
  readonly #schedules = new Map<string, MemorySchedule>();
  readonly #send: Send;
  #timer: NodeJS.Timeout | undefined;

  constructor(send: Send) {
    this.#send = send;
  }

  put(schedule: string, request: PutScheduleRequest, sizes: SizeLimits): ScheduleAnswer {
    const name = readRequest(scheduleName, schedule);
    const definition = readRequest(putScheduleRequest, request, sizes);
    messageBytes(tickMessage(name, definition.message, 0), 0, sizes);
    const known = this.#schedules.get(name);
    const { cron = null, everySeconds = null, timeZone = cron === null ? null : 'UTC', ...other } = definition;
    const rest = { ...other, queue: other.queue ?? null, topic: other.topic ?? null };
    const times = { cron, everySeconds, timeZone };
    const keepsTick =
      known?.enabled === rest.enabled &&
      known.cron === cron &&
      known.everySeconds === everySeconds &&
      known.timeZone === timeZone;
    const nextAt = keepsTick ? known.nextAt : rest.enabled ? nextTick(times, Date.now()) : null;
    const state = { lastRun: known?.lastRun ?? null, lastFailure: null, createdAt: known?.createdAt ?? Date.now() };
    this.#schedules.set(name, { name, ...rest, ...times, ...state, nextAt });
    this.#setTimer();
    return this.get(name);
  }

  get(name: string): ScheduleAnswer {
    const { createdAt, nextAt, ...schedule } = this.#find(name);
    const nextRunAt = nextAt === null ? null : new Date(nextAt).toISOString();
    return { ...schedule, createdAt: new Date(createdAt).toISOString(), nextRunAt };
  }

  list(query: Partial<SchedulesQuery>): SchedulesAnswer {
    const { after = '', limit } = readRequest(schedulesQuery, query);
    const names = [...this.#schedules.keys()].filter((name) => name > after).toSorted();
    const page = names.slice(0, limit);
    const nextAfter = names.length > limit ? (page.at(-1) ?? null) : null;
    return { schedules: page.map((name) => this.get(name)), nextAfter };
  }

  delete(name: string): void {
    this.#find(name);
    this.#schedules.delete(name);
    this.#setTimer();
  }

  async run(name: string): Promise<RunScheduleAnswer> {
    const schedule = this.#find(name);
    return { messageId: await this.#send(schedule, tickMessage(name, schedule.message, Date.now())) };
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#schedules.clear();
  }

  #find(name: string): MemorySchedule {
    const schedule = this.#schedules.get(readRequest(scheduleName, name));
    if (schedule !== undefined) return schedule;
    throw new RowmqError('schedule-not-found', `Schedule '${name}' does not exist; create it with putSchedule.`);
  }

  /** Waits for the next tick, without keeping the process alive. */
  #setTimer(): void {
    clearTimeout(this.#timer);
    const next = Math.min(...[...this.#schedules.values()].map(({ nextAt }) => nextAt ?? Infinity));
    if (next === Infinity) return;
    const waitMs = Math.min(Math.max(0, next - Date.now()), LONGEST_TIMER_MS);
    this.#timer = setTimeout(() => void this.#runDue(), waitMs);
    // Some fake timers, such as those of Jest for browsers, are numbers.
    (this.#timer as { unref?: () => unknown }).unref?.();
  }

  /** Never rejects. */
  async #runDue(): Promise<void> {
    const now = Date.now();
    for (const schedule of this.#schedules.values()) {
      while (schedule.nextAt !== null && schedule.nextAt <= now) {
        const due = dueTicks(schedule, schedule.missed, schedule.nextAt, now);
        schedule.nextAt = due.nextAt;
        for (const tick of due.ticks) await this.#runTick(schedule, tick);
      }
    }
    this.#setTimer();
  }

  /** A refused tick, as by a full queue, is lost here. A broker's reaper tries it again. */
  async #runTick(schedule: MemorySchedule, tick: number): Promise<void> {
    const { name, message } = schedule;
    try {
      const messageId = await this.#send(schedule, tickMessage(name, message, tick));
      schedule.lastRun = { tick: new Date(tick).toISOString(), messageId };
      schedule.lastFailure = null;
    } catch (error) {
      schedule.lastFailure = String(error);
    }
  }
}
