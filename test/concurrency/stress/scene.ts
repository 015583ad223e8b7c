import type { PutQueueRequest, RowmqError } from '@rowmq/contract';
import type { Queue } from '@rowmq/store';
import type { TestStore } from '../../support/store.js';
import { Account } from './account.js';
import { HeldLeases } from './held-leases.js';
import type { Meetings } from './meetings.js';

/** A planned operation and its queues. */
export interface Plan {
  queues: readonly string[];
  carryOut(): Promise<void>;
}

/** A kind of statement that a broker or a reaper sends. */
export interface Statements {
  /** Its frequency, relative to the other kinds of its list. */
  weight: number;
  /** Codes of refusals that are correct. */
  refusals?: readonly RowmqError['code'][];
  /** It yields to the holder of a table lock and runs again later. */
  givesWay?: boolean;
  /** Undefined: nothing to do now. */
  plan(scene: Scene, store: TestStore): Promise<Plan | undefined> | Plan | undefined;
}

/**
 * Ids advance this many times faster than real time. A one-minute partition is past after a
 * second.
 */
const TIME_FACTOR = 60;
const MINUTE = 60_000;
/**
 * Seconds of a cycle. First, a broker whose clock is ahead stamps some packs. The next split
 * finds rows in the catch-all partition and copies them.
 *
 * Later, for a while, no worker creates partitions. The catch-all partition then holds too many
 * rows to copy, and the split exchanges it for a table.
 */
const CYCLE = { length: 120, clockIsAheadUntil: 40, nobodySplitsFrom: 80, nobodySplitsUntil: 105 };
const SHARE_AHEAD = 0.3;
const AHEAD_MINUTES = { least: 2, most: 40 };
/** In every n-th partition some messages live long enough to prevent its drop. */
const KEPT_EVERY = 4;
const SHARE_LONG_LIVED = 0.3;

const SHARE_PASSING = 0.6;

/** Sorts after every id. */
export const LAST_ID = Buffer.alloc(16, 255);

/** The settings of a new queue. */
export const SETTINGS = {
  leaseSeconds: 1,
  messageTtlSeconds: 3600,
  maxReceives: null,
  deadLetterExpired: false,
  maxDepth: null,
} satisfies PutQueueRequest;

/** The shared state of all brokers and reapers in a stress run. */
export class Scene {
  readonly account = new Account();
  readonly held = new HeldLeases();
  /** Never deleted, because each is the other's dead-letter queue. */
  readonly lasting = ['a', 'b'] as const;
  /** Deleted and recreated again and again. */
  readonly passing = 'c';
  readonly queues: readonly string[] = [...this.lasting, this.passing];
  /** All queues subscribe to them at first. The last one is deleted and recreated. */
  readonly topics: readonly string[] = ['t', 'u'];
  /** True if the passing queue exists, as far as the scene knows. */
  isThere = false;
  /** Counts of partitions, of thinned messages, and of splits that found too many rows to copy. */
  readonly done = { dropped: 0, made: 0, overfull: 0, thinned: 0, rebuilt: 0 };
  /** By store, the time of the reaper's last change to the table `pack`. */
  readonly changedAt = new WeakMap<TestStore, number>();
  private readonly claimed = new WeakMap<TestStore, Set<string>>();
  private readonly started = Date.now();

  constructor(readonly meetings: Meetings) {}

  /** The queues on which a broker has a claim in flight. */
  claimedBy(store: TestStore): Set<string> {
    const claimed = this.claimed.get(store) ?? new Set();
    this.claimed.set(store, claimed);
    return claimed;
  }

  /** The time, in ms since 1970, by which reapers create and drop partitions. */
  get stampedNow(): number {
    return this.started + (Date.now() - this.started) * TIME_FACTOR;
  }

  /** The time for a pack's id. */
  stamp(): number {
    const { least, most } = AHEAD_MINUTES;
    const mayBeAhead = this.done.made > 0 && this.second < CYCLE.clockIsAheadUntil && !this.isKeptPartition;
    const isAhead = mayBeAhead && Math.random() < SHARE_AHEAD;
    return Math.floor(this.stampedNow + (isAhead ? (least + Math.random() * (most - least)) * MINUTE : 0));
  }

  /** Whether a message that is enqueued now lives long. */
  isLongLived(): boolean {
    return this.isKeptPartition && Math.random() < SHARE_LONG_LIVED;
  }

  private get isKeptPartition(): boolean {
    return Math.floor(this.stampedNow / MINUTE) % KEPT_EVERY === 0;
  }

  /** True while workers create partitions. */
  get isSplitting(): boolean {
    return this.second < CYCLE.nobodySplitsFrom || this.second >= CYCLE.nobodySplitsUntil;
  }

  /**
   * Picks a queue, mostly the passing one, because some statements meet others on it only briefly.
   */
  anyQueue(): string {
    return Math.random() < SHARE_PASSING ? this.passing : oneOf(this.lasting);
  }

  private get second(): number {
    return ((Date.now() - this.started) / 1000) % CYCLE.length;
  }
}

/**
 * Plans an operation on one queue that this broker or reaper knows. Its settings may be a second
 * old.
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

/** Plans an operation on several queues that this broker or reaper knows, in random order. */
export async function planForSome(
  scene: Scene,
  queues: TestStore['queues'],
  carryOut: (queues: Queue[]) => Promise<void>,
): Promise<Plan | undefined> {
  const known = [...(await queues.getAll(someOf(scene.queues))).values()];
  if (known.length === 0) return undefined;
  return { queues: known.map(({ name }) => name), carryOut: () => carryOut(known) };
}

/** A number of events. */
export function someNumber(): number {
  return Math.floor(Math.random() * 100);
}

export function oneOf<T>(list: readonly T[]): T {
  return list[Math.floor(Math.random() * list.length)] as T;
}

/** Picks at least one element, in random order. */
export function someOf<T>(list: readonly T[]): T[] {
  const shuffled = list.map((one) => ({ one, key: Math.random() })).toSorted((a, b) => a.key - b.key);
  return shuffled.slice(0, 1 + Math.floor(Math.random() * list.length)).map(({ one }) => one);
}
