import { Inject, Injectable } from '@nestjs/common';
import { RowmqError } from '@rowmq/contract';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';

/** The levels, by who gives way. Each one includes those before it. Acks never give way. */
export const LEVELS = ['nothing', 'reaper', 'enqueues', 'dequeues'] as const;

export type Thresholds = BrokerConfig['slowMs'];

/** A level ends when the measure falls below this part of its threshold. */
const BACK = 0.5;
/** The weight of a batch in the average. */
const WEIGHT = 0.2;
/** While no batch is in flight, the average halves in this time. */
const HALF_LIFE_MS = 1000;

/**
 * Notices that the database is slow, from the time that batches of all verbs take. It is an average
 * of those that ended, or the time for which several have been in flight and none has ended. A
 * single one that waits, for example for a lock, says nothing about the database.
 *
 * {@link DatabaseStrain} adds what it sees of the server.
 *
 * The levels come one after the other as it gets slower: the reaper yields, then enqueues are
 * refused, then dequeues. So what is left of the database goes to those who settle messages.
 */
@Injectable()
export class Pressure {
  private readonly thresholds: readonly number[];
  /** When the batches in flight began, in this order. */
  private readonly inFlight = new Set<{ at: number }>();
  private average = 0;
  /** When a batch last ended. */
  private endedAt = 0;
  private current = 0;
  private begun = 0;
  private further = { level: 0, until: 0 };

  constructor(@Inject(BROKER_CONFIG) { slowMs: { reaper, enqueues, dequeues } }: Pick<BrokerConfig, 'slowMs'>) {
    this.thresholds = [0, reaper, enqueues, dequeues];
  }

  /** A batch begins. The caller calls the result when it has ended. */
  begin(now = performance.now()): (now?: number) => void {
    const batch = { at: now };
    this.average = this.averageAt(now);
    this.begun += 1;
    this.inFlight.add(batch);
    return (ended = performance.now()) => {
      if (!this.inFlight.delete(batch)) return;
      this.average = this.average * (1 - WEIGHT) + (ended - batch.at) * WEIGHT;
      this.endedAt = ended;
    };
  }

  /** The level of now: an index of {@link LEVELS}. */
  level(now = performance.now()): number {
    const ms = Math.max(this.averageAt(now), this.stalledMs(now));
    this.current = levelFrom(ms, this.thresholds, this.current);
    return now < this.further.until ? Math.max(this.current, this.further.level) : this.current;
  }

  /** The number of batches so far. */
  get batches(): number {
    return this.begun;
  }

  /** Another sign of a slow database says this level until a time. It replaces the one before. */
  add(level: number, until: number): void {
    this.further = { level, until };
  }

  /** Throws `overloaded` if requests of this kind give way now. */
  shed(kind: 'enqueues' | 'dequeues'): void {
    if (this.level() < LEVELS.indexOf(kind)) return;
    throw new RowmqError(
      'overloaded',
      `The database is slow, so this broker takes no ${kind} for the moment, and nothing was done; try again later.`,
      { retryAfterSeconds: 1 },
    );
  }

  private averageAt(now: number): number {
    const idleMs = this.inFlight.size > 0 ? 0 : Math.max(0, now - this.endedAt);
    return this.average * 0.5 ** (idleMs / HALF_LIFE_MS);
  }

  /** The time for which two batches or more have been in flight and none has ended. */
  private stalledMs(now: number): number {
    if (this.inFlight.size < 2) return 0;
    const [, second] = this.inFlight;
    return now - Math.max((second as { at: number }).at, this.endedAt);
  }
}

/**
 * The level that a measure has reached: an index of its ascending thresholds. It ends later than it
 * begins, so that it does not flutter.
 */
export function levelFrom(measure: number, thresholds: readonly number[], before: number): number {
  let level = before;
  while (level + 1 < thresholds.length && measure >= (thresholds[level + 1] as number)) level += 1;
  while (level > 0 && measure < (thresholds[level] as number) * BACK) level -= 1;
  return level;
}
