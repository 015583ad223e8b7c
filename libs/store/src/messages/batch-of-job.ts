import type { Transaction } from '../database/database.js';
import type { Statement } from '../database/session.js';
import { copyOf, type Delivery } from './delivery.js';
import { common, countMembers, lowestMembers, type Members, union } from './members.js';

/** The result of a batch, as its job counts it. */
export interface BatchCounts {
  /** Messages in the packs that it has passed, and those that it has handled of the next one. */
  examined: number;
  /** Messages that it has moved or settled. */
  done: number;
  /** Messages that it wanted, and that no batch can move: they have nowhere to go. */
  skipped: number;
  /** Messages that it wanted and left, because others have locked or changed them. */
  left: number;
  /** The next batch begins after this pack. Null: this was the last one. */
  next: Buffer | null;
}

/** How a job takes part in a batch of a walk through its queue. */
export interface BatchOfJob {
  /** The last pack that is its business. */
  readonly upTo: Buffer;
  /** The queue to which messages move. Null: each to the queue that it left first. */
  readonly targetId: number | null;
  /** Whether messages may go to a queue of this name. */
  reaches(queue: string): boolean;
  /** Chooses messages of deliveries that the batch found. */
  choose<Row extends Delivery>(found: readonly Row[]): Promise<Map<Row, Members>>;
  /**
   * Locks the job, before all other locks. Throws if the job has ended, or is another worker's.
   * Returns false if an earlier try of this batch, whose COMMIT got no answer, was committed.
   */
  begin(tx: Transaction): Promise<boolean>;
  /** Counts the batch, as a part of its transaction. */
  end(counts: BatchCounts): Statement[];
  /** The transaction is committed. Another one of the same batch may follow. */
  committed(): void;
}

/** Lies behind every pack's id. */
export const LAST_ID = Buffer.alloc(16, 0xff);

/** A batch that belongs to no job concerns every message. */
export const NO_JOB: BatchOfJob = {
  upTo: LAST_ID,
  targetId: null,
  reaches: () => true,
  choose: async (found) => new Map(found.map((row) => [row, row.members])),
  begin: async () => true,
  end: () => [],
  committed: () => undefined,
};

/** The messages that a batch wants, by delivery. */
export interface Wanted<Row extends Delivery> {
  members: ReadonlyMap<Row, Members>;
  /** The next batch begins after this pack. */
  next: Buffer | null;
  /** The batch is done with the pack of this delivery. */
  isPassed(row: Pick<Delivery, 'packId'>): boolean;
}

/**
 * Takes the first `most` of the chosen messages. If that leaves messages of a pack, the next batch
 * begins with this pack.
 *
 * @param rows in the order of their packs
 * @param stretch the packs behind which the batch and the next one begin
 */
export function takeFirst<Row extends Delivery>(
  rows: readonly Row[],
  chosen: ReadonlyMap<Row, Members>,
  most: number,
  stretch: { after: Buffer; next: Buffer | null },
): Wanted<Row> {
  const members = new Map<Row, Members>();
  let room = most;
  let { next } = stretch;
  for (const [index, row] of rows.entries()) {
    const wanted = chosen.get(row) ?? 0;
    const taken = lowestMembers(wanted, room);
    if (taken !== 0) members.set(row, taken);
    room -= countMembers(taken);
    if (taken === wanted) continue;
    next = rows.slice(0, index).findLast(({ packId }) => packId.compare(row.packId) < 0)?.packId ?? stretch.after;
    break;
  }
  const last = next;
  return { members, next, isPassed: ({ packId }) => last === null || packId.compare(last) <= 0 };
}

/**
 * Counts a batch.
 *
 * @param found the deliveries at which the batch has looked
 * @param handled the messages that it has moved or settled, by delivery
 * @param canGo whether the chosen messages of a delivery have a place to go to
 */
export function countBatch<Row extends Delivery>(
  found: readonly Row[],
  chosen: ReadonlyMap<Row, Members>,
  wanted: Wanted<Row>,
  handled: ReadonlyMap<Delivery, Members>,
  canGo: (row: Row) => boolean = () => true,
): BatchCounts {
  const passed = found.filter((row) => wanted.isPassed(row));
  const done = sum([...handled.values()].map(countMembers));
  const doneOfPassed = sum([...handled].map(([row, members]) => (wanted.isPassed(row) ? countMembers(members) : 0)));
  const wantedOfPassed = countOf(passed, chosen);
  const going = countOf(passed.filter(canGo), chosen);
  return {
    examined: sum(passed.map(({ members }) => countMembers(members))) + done - doneOfPassed,
    done,
    skipped: wantedOfPassed - going,
    left: Math.max(0, going - doneOfPassed),
    next: wanted.next,
  };
}

/** The number of messages that were chosen of these deliveries. */
export function countOf<Row extends Delivery>(rows: readonly Row[], chosen: ReadonlyMap<Row, Members>): number {
  return sum(rows.map((row) => countMembers(chosen.get(row) ?? 0)));
}

export function sum(counts: Iterable<number>): number {
  return [...counts].reduce((total, count) => total + count, 0);
}

/**
 * Finds the messages that a batch wants of the deliveries that it has locked. A delivery may have
 * been split since the batch found it, so its place in the index and its copy count, not its name.
 */
export function finderOf<Row extends Delivery>(wanted: ReadonlyMap<Row, Members>): (locked: Delivery) => Members {
  const byPlace = new Map<string, Members>();
  for (const [row, members] of wanted) byPlace.set(placeOf(row), union(members, byPlace.get(placeOf(row)) ?? 0));
  return (locked) => common(locked.members, byPlace.get(placeOf(locked)) ?? 0);
}

function placeOf({ packId, part, priorityRank, availableAt }: Delivery): string {
  return `${packId.toString('latin1')} ${copyOf(part)} ${priorityRank} ${availableAt}`;
}
