import type { Transaction } from '../database/database.js';
import type { Statement } from '../database/session.js';
import { groupBy } from '../group-by.js';
import type { Delivery } from '../messages/delivery.js';
import { rewrite } from '../messages/delivery.sql.js';
import { behind, type Grouped, groupsOf, isGrouped, keyText } from './group.js';
import {
  deleteGroups,
  type Group,
  isIdle,
  keyOf,
  lastIds,
  lockGroups,
  type Next,
  promote,
  readGroups,
  readNext,
} from './group.sql.js';
import { isWaiting } from './waiting.js';

/**
 * Locks the groups of deliveries without a lease, before the deliveries themselves. The caller must
 * then skip locked deliveries, because a lease's holder locks the other way round. Sends nothing if
 * no delivery has a group.
 */
export async function lockGroupsOf(
  tx: Transaction,
  deliveries: readonly { queueId: number; groupKey: number | null }[],
): Promise<Group[]> {
  const groups = groupsOf(deliveries);
  if (groups.length === 0) return [];
  const [, locked] = await tx.all([lockGroups(groups), readGroups(groups)]);
  return locked as Group[];
}

/**
 * Ends a transaction that replaces locked deliveries by others. In an ordered queue, the next
 * delivery of a group takes the place of a first one that is gone. One that moved to another queue
 * waits there behind its group, at the place of its id, or is the first.
 *
 * Locks the groups that this needs, unless the caller has ({@link lockGroupsOf}).
 *
 * @param last statements that wait for locks which nobody holds who wants one of these
 */
export async function finish(
  tx: Transaction,
  before: readonly Delivery[],
  after: readonly Delivery[],
  locked: readonly Group[] = [],
  last: readonly Statement[] = [],
): Promise<void> {
  const sources = keysOf(before);
  const entering = after.filter((row): row is Grouped => isGrouped(row) && !sources.has(keyText(row)));
  const staying = after.filter((row) => !isGrouped(row) || sources.has(keyText(row)));
  const kept = keysOf(staying.filter((row) => !isWaiting(row)));
  const ended = groupsOf(before.filter((row) => !isWaiting(row))).filter((group) => !kept.has(keyText(group)));
  const missing = locked.length > 0 ? [] : groupsOf([...ended, ...entering]);
  if (locked.length + missing.length === 0) {
    await tx.finish([...rewrite(before, after), ...last]);
    return;
  }
  const answers = await tx.all([
    ...(missing.length > 0 ? [lockGroups(missing)] : []),
    ...rewrite(before, staying),
    readNext(ended),
    readGroups(missing),
  ]);
  const [next, read] = answers.slice(-2) as [Next[], Group[]];
  const groups = [...locked, ...read];
  const idle = keysOf(groups.filter(isIdle));
  const placed = place(entering, idle);
  const promoted = next.filter((one) => one.next !== null);
  const alive = keysOf([...placed, ...promoted]);
  const over = groupsOf([...ended, ...groups.filter((group) => idle.has(keyText(group)))]).filter(
    (group) => !alive.has(keyText(group)),
  );
  await tx.finish([
    ...rewrite([], placed),
    ...(promoted.length > 0 ? [promote(promoted.map(keyOf))] : []),
    ...(placed.length > 0 ? [lockGroups(lastIds(placed))] : []),
    ...(over.length > 0 ? [deleteGroups(over)] : []),
    ...last,
  ]);
}

function keysOf(rows: readonly { queueId: number; groupKey: number | null }[]): Set<string> {
  return new Set(groupsOf(rows).map(keyText));
}

/** Places deliveries that enter groups: behind, but for the first one of an idle group. */
function place(entering: readonly Grouped[], idle: ReadonlySet<string>): Grouped[] {
  return [...groupBy(entering, keyText)].flatMap(([key, rows]) =>
    rows
      .toSorted((one, other) => one.packId.compare(other.packId) || one.part - other.part)
      .map((row, nth) => (nth === 0 && idle.has(key) ? row : behind(row))),
  );
}
