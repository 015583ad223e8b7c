import type { PutQueueRequest, RowmqError } from '@rowmq/contract';
import type { Queue } from '@rowmq/store';
import type { TestStore } from '../../support/store.js';
import { Account } from './account.js';
import { HeldLeases } from './held-leases.js';
import type { Meetings } from './meetings.js';

/** What is about to be done, and to which queues. */
export interface Plan {
  queues: readonly string[];
  carryOut(): Promise<void>;
}

/** A kind of statements that a broker or a reaper sends. */
export interface Statements {
  /** How often it has its turn, relative to the others of its list. */
  weight: number;
  /** Codes of refusals that are as they should be. */
  refusals?: readonly RowmqError['code'][];
  /** It gives way to whoever holds a table, and comes back later. */
  givesWay?: boolean;
  /** Undefined: there is nothing to do at this moment. */
  plan(scene: Scene, store: TestStore): Promise<Plan | undefined> | Plan | undefined;
}

/**
 * Messages are stamped as if time ran so much faster: a partition of a minute is past within a
 * second.
 */
const TIME_FACTOR = 60;
const MINUTE = 60_000;
/**
 * Seconds of a cycle. At first some messages are stamped by a broker whose clock is ahead, so that
 * whoever makes partitions splits one that has rows, and copies them. When time has gone past
 * these, no partitions are made for a while, so that the catch-all partition has too many rows to
 * copy, and they are swapped out and in.
 */
const CYCLE = { length: 120, clockIsAheadUntil: 40, nobodySplitsFrom: 80, nobodySplitsUntil: 105 };
const SHARE_AHEAD = 0.3;
const AHEAD_MINUTES = { least: 2, most: 40 };
/**
 * Of partitions, those in which some messages live long enough to keep them from being dropped as a
 * whole.
 */
const KEPT_EVERY = 4;
const SHARE_LONG_LIVED = 0.3;

const SHARE_PASSING = 0.6;

/** Comes after every id. */
export const LAST_ID = Buffer.alloc(16, 255);

/** What a queue is made with. */
export const SETTINGS = {
  leaseSeconds: 1,
  messageTtlSeconds: 3600,
  maxReceives: 3,
  maxDepth: null,
} satisfies PutQueueRequest;

/** What all brokers and reapers of a stress work on, and what is known of it. */
export class Scene {
  readonly account = new Account();
  readonly held = new HeldLeases();
  /** Never deleted, since each is the other's dead-letter queue. */
  readonly lasting = ['a', 'b'] as const;
  /** Deleted and made again and again. */
  readonly passing = 'c';
  readonly queues: readonly string[] = [...this.lasting, this.passing];
  /** Whether the passing queue is there, as far as is known. */
  isThere = false;
  /**
   * Partitions, and messages that were thinned out; how often the catch-all one had too many rows
   * to copy.
   */
  readonly done = { dropped: 0, made: 0, overfull: 0, thinned: 0, rebuilt: 0 };
  /** When a reaper last changed the table of messages. */
  readonly changedAt = new WeakMap<TestStore, number>();
  private readonly claimed = new WeakMap<TestStore, Set<string>>();
  private readonly started = Date.now();

  constructor(readonly meetings: Meetings) {}

  /** Queues of which a broker has a claim under way. */
  claimedBy(store: TestStore): Set<string> {
    const claimed = this.claimed.get(store) ?? new Set();
    this.claimed.set(store, claimed);
    return claimed;
  }

  /** The instant that partitions are made and dropped by, ms since 1970. */
  get stampedNow(): number {
    return this.started + (Date.now() - this.started) * TIME_FACTOR;
  }

  /** What one message's id is stamped with, and whether it lives for long. */
  stamp(): { at: number; isLongLived: boolean } {
    const { least, most } = AHEAD_MINUTES;
    const isAhead = this.done.made > 0 && this.second < CYCLE.clockIsAheadUntil && Math.random() < SHARE_AHEAD;
    const at = Math.floor(this.stampedNow + (isAhead ? (least + Math.random() * (most - least)) * MINUTE : 0));
    return { at, isLongLived: Math.floor(at / MINUTE) % KEPT_EVERY === 0 && Math.random() < SHARE_LONG_LIVED };
  }

  /** Whether partitions are made at this moment. */
  get isSplitting(): boolean {
    return this.second < CYCLE.nobodySplitsFrom || this.second >= CYCLE.nobodySplitsUntil;
  }

  /**
   * One of the queues: mostly the passing one, where some statements meet others for moments only.
   */
  anyQueue(): string {
    return Math.random() < SHARE_PASSING ? this.passing : oneOf(this.lasting);
  }

  private get second(): number {
    return ((Date.now() - this.started) / 1000) % CYCLE.length;
  }
}

/**
 * Something that is done to one queue: any that this broker or reaper knows, as it was up to a
 * second ago.
 */
export async function planForQueue(
  scene: Scene,
  { queues }: TestStore,
  carryOut: (queue: Queue) => Promise<void>,
): Promise<Plan | undefined> {
  const name = scene.anyQueue();
  const queue = (await queues.getAll([name])).get(name);
  return queue && { queues: [name], carryOut: () => carryOut(queue) };
}

export function oneOf<T>(list: readonly T[]): T {
  return list[Math.floor(Math.random() * list.length)] as T;
}

/** Some of them, at least one, in any order. */
export function someOf<T>(list: readonly T[]): T[] {
  const shuffled = list.map((one) => ({ one, place: Math.random() })).toSorted((a, b) => a.place - b.place);
  return shuffled.slice(0, 1 + Math.floor(Math.random() * list.length)).map(({ one }) => one);
}
