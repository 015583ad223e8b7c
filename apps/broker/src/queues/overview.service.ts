import { Injectable } from '@nestjs/common';
import type { Attention, OverviewAnswer, OverviewQuery, OverviewQueue } from '@rowmq/contract';
import { MinuteRepository, newHour, type Queue, ReaperRepository, ScheduleRepository } from '@rowmq/store';
import type { Caller } from '../http/caller.js';
import { formatTime } from '../messages/message.codec.js';
import { byUrgency, ofBroker, ofQueue, ofSchedule } from './attention.js';
import { QueueStatsService } from './queue-stats.service.js';

/** All pages that are open share a snapshot of this age. */
const FRESH_MS = 2000;
/** Snapshots take at most this part of the time. */
const REST_FACTOR = 50;
/** Brokers report what happened every ten seconds. */
const HOURS_MS = 10_000;
const MOST_ATTENTION = 50;
const MOST_SCHEDULES = 20;
const MOST_SOURCES = 10;

interface Snapshot {
  readonly at: number;
  readonly takenAt: number;
  readonly tookMs: number;
  readonly queues: readonly OverviewQueue[];
  /** Reasons that concern queues and schedules. */
  readonly attention: readonly Attention[];
  /** Reasons that only a key without patterns sees. */
  readonly ofBroker: readonly Attention[];
}

type Hours = Awaited<ReturnType<MinuteRepository['stretches']>>;

/**
 * All queues at a glance. A thousand queues cost ten statements every two seconds, however many
 * pages are open, and nothing while none is.
 */
@Injectable()
export class OverviewService {
  private last: Snapshot | undefined;
  private taking: Promise<Snapshot> | undefined;
  private hours: (Hours & { readAt: number }) | undefined;

  constructor(
    private readonly stats: QueueStatsService,
    private readonly minutes: MinuteRepository,
    private readonly reaper: ReaperRepository,
    private readonly schedules: ScheduleRepository,
  ) {}

  /** The queues that the caller reaches. */
  async answer(caller: Caller, query: OverviewQuery): Promise<OverviewAnswer> {
    const snapshot = await this.snapshot();
    const reached = caller.reachesAll ? snapshot.queues : snapshot.queues.filter(({ name }) => caller.reaches(name));
    const attention = caller.reachesAll
      ? [...snapshot.ofBroker, ...snapshot.attention]
      : snapshot.attention.filter(({ name }) => name !== null && caller.reaches(name));
    const text = query.search?.toLowerCase() ?? '';
    const matched = reached.filter(({ name }) => name.toLowerCase().includes(text));
    const sorted = matched.toSorted(comparing(query));
    return {
      at: formatTime(snapshot.at),
      attention: attention.slice(0, MOST_ATTENTION),
      attentionTotal: attention.length,
      totals: totalsOf(reached),
      matched: matched.length,
      queues: sorted.slice(query.offset, query.offset + query.limit).map((queue) => ({
        ...queue,
        deadLettersOf: queue.deadLettersOf.filter((name) => caller.reaches(name)).slice(0, MOST_SOURCES),
      })),
    };
  }

  private async snapshot(): Promise<Snapshot> {
    const { last } = this;
    if (last !== undefined && performance.now() - last.takenAt < Math.max(FRESH_MS, last.tookMs * REST_FACTOR))
      return last;
    this.taking ??= this.take().finally(() => (this.taking = undefined));
    return this.taking;
  }

  private async take(): Promise<Snapshot> {
    const takenAt = performance.now();
    const counted = await this.stats.overview();
    const { now, queues: hours } = await this.readHours(takenAt);
    const at = Math.round(now + (performance.now() - (this.hours?.readAt ?? takenAt)));
    const [leader, pressure, failed] = await Promise.all([
      this.reaper.leader(),
      this.reaper.pressure(),
      this.schedules.failed(MOST_SCHEDULES),
    ]);
    const sources = sourcesOf(counted.map(({ queue }) => queue));
    const observed = counted.map((one) => ({
      ...one,
      hour: hours.get(one.queue.id) ?? newHour(),
      deadLettersOf: sources.get(one.queue.id) ?? [],
    }));
    const attention = [
      ...observed.flatMap((one) => ofQueue(one, at)),
      ...failed.map(({ name, lastFailure }) => ofSchedule(name, lastFailure)),
    ];
    this.last = {
      at,
      takenAt,
      tookMs: performance.now() - takenAt,
      queues: observed.map(({ queue, stats, ageMs, hour, deadLettersOf }) => ({
        name: queue.name,
        paused: queue.paused,
        producersPaused: queue.producersPaused,
        deadLettersOf: [...deadLettersOf],
        stats: {
          ready: stats.ready,
          delayed: stats.delayed,
          leased: stats.leased,
          waiting: stats.waiting,
          oldestReadyAgeSeconds: stats.oldestReadyAgeSeconds,
          ageSeconds: Math.round(ageMs) / 1000,
        },
        in: rounded(hour.inPerSecond),
        out: rounded(hour.outPerSecond),
        failedLastHour: hour.failed,
        hour: [...hour.stretches],
      })),
      attention: attention.toSorted(byUrgency),
      ofBroker: [
        ...(pressure > 0 ? [ofBroker('database-slow')] : []),
        ...(leader === null ? [ofBroker('no-reaper')] : []),
      ],
    };
    return this.last;
  }

  private async readHours(now: number): Promise<Hours> {
    if (this.hours === undefined || now - this.hours.readAt > HOURS_MS)
      this.hours = { ...(await this.minutes.stretches()), readAt: now };
    return this.hours;
  }
}

/** The names of the queues whose dead-letter queue each one is, by its id. */
function sourcesOf(queues: readonly Queue[]): Map<number, string[]> {
  const sources = new Map<number, string[]>();
  for (const { name, deadLetterQueueId } of queues) {
    if (deadLetterQueueId === null) continue;
    const names = sources.get(deadLetterQueueId);
    if (names === undefined) sources.set(deadLetterQueueId, [name]);
    else names.push(name);
  }
  return sources;
}

function totalsOf(queues: readonly OverviewQueue[]): OverviewAnswer['totals'] {
  const sum = (figure: (queue: OverviewQueue) => number): number =>
    queues.reduce((all, queue) => all + figure(queue), 0);
  return {
    queues: queues.length,
    ready: sum(({ stats }) => stats.ready),
    delayed: sum(({ stats }) => stats.delayed),
    leased: sum(({ stats }) => stats.leased),
    waiting: sum(({ stats }) => stats.waiting),
    in: rounded(sum((queue) => queue.in)),
    out: rounded(sum((queue) => queue.out)),
    failedLastHour: sum(({ failedLastHour }) => failedLastHour),
  };
}

const FIGURES: Record<Exclude<OverviewQuery['sort'], 'name'>, (queue: OverviewQueue) => number> = {
  ready: ({ stats }) => stats.ready,
  delayed: ({ stats }) => stats.delayed,
  leased: ({ stats }) => stats.leased,
  oldest: ({ stats }) => stats.oldestReadyAgeSeconds ?? -1,
  in: (queue) => queue.in,
  out: (queue) => queue.out,
  failed: ({ failedLastHour }) => failedLastHour,
};

/** Names decide between equal figures, so that rows keep their places. */
function comparing({ sort, order }: OverviewQuery): (one: OverviewQueue, other: OverviewQueue) => number {
  const sign = order === 'asc' ? 1 : -1;
  const byName = (one: OverviewQueue, other: OverviewQueue): number =>
    one.name < other.name ? -1 : Number(one.name > other.name);
  if (sort === 'name') return (one, other) => sign * byName(one, other);
  const figure = FIGURES[sort];
  return (one, other) => sign * (figure(one) - figure(other)) || byName(one, other);
}

function rounded(perSecond: number): number {
  return Math.round(perSecond * 1000) / 1000;
}
