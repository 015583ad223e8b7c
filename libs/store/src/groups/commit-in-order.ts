import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import type { Statement } from '../database/session.js';
import {
  byRecordKey,
  completeRecords,
  insertRecords,
  type NewRecord,
  recordRow,
  refuseLive,
} from '../messages/deduplication.sql.js';
import { reasonToBeginAgain, SettingsChanged } from '../messages/begin-again.js';
import { isStored } from '../messages/enqueue.sql.js';
import type { Queue } from '../queues/queue.js';
import type { GroupKey } from './group.js';
import { deleteGroups, type Group, isIdle, type LockedGroup, lockGroups, readGroups } from './group.sql.js';
import { idsAfter } from './store-in-order.js';

/** The id in the record of a message that is not packed yet. */
export const NO_ID = Buffer.alloc(16);

type Versioned = Pick<Queue, 'id' | 'version'>;

/** Messages that one transaction stores in the order of their groups. */
export interface InOrder {
  /** The topics, if there are any, and then the queues. */
  rows: readonly { table: 'topic' | 'queue'; rows: readonly Versioned[] }[];
  /** In the order `byGroup`. */
  groups: readonly GroupKey[];
  /** Records of deduplicationIds and Idempotency-Keys, with the ids that the messages have now. */
  makeRecords: () => NewRecord[];
  /** Packs the messages. Returns the id of the first pack, and what inserts them at `@now`. */
  pack: (makeId: () => Buffer, groups: readonly Group[]) => { firstPack: Buffer | undefined; inserts: Statement[] };
}

/**
 * Stores messages with two round trips and one commit. The first locks the topics and queues,
 * shared, the records of duplicates and the groups. The second stores packs, whose ids are higher
 * than any of their groups: within a group, ids have the order of the commits, whatever the clocks
 * of the brokers say.
 *
 * Returns the database's time of the store. Undefined: a COMMIT without an answer turned out well.
 * Throws {@link SettingsChanged} and `RecordMet`, with nothing stored.
 */
export async function commitInOrder(
  database: Database,
  { rows: used, groups: keys, makeRecords, pack }: InOrder,
): Promise<number | undefined> {
  const recordsNow = (): NewRecord[] => makeRecords().toSorted(byRecordKey);
  let records: NewRecord[] = [];
  let firstPack: Buffer | undefined;
  return database.transaction(async (tx) => {
    try {
      records = recordsNow();
      const answers = await tx.all([
        ...used.map(({ table, rows }) => lockRows(table, rows)),
        { sql: `SET @now = ${NOW_MS}` },
        ...claimRecords(records),
        ...(keys.length > 0 ? [lockGroups(keys)] : []),
        readGroups(keys),
      ]);
      const groups = answers.at(-1) as LockedGroup[];
      // The earlier try held the same groups, so it is over. It may have stored the batch before
      // somebody changed a queue.
      if (tx.commitUnknown && firstPack !== undefined && (await isStored(tx, firstPack))) {
        const idle = groups.filter(isIdle);
        await tx.finish(idle.length > 0 ? [deleteGroups(idle)] : []);
        return undefined;
      }
      for (const [index, { rows }] of used.entries()) checkVersions(rows, answers[index] as Versioned[]);
      const packed = pack(idsAfter(groups), groups);
      firstPack = packed.firstPack;
      const last = await tx.finish([
        ...packed.inserts,
        ...(records.length > 0 ? [completeRecords(recordsNow().map((record) => recordRow(record, '@now')))] : []),
        { sql: 'SELECT @now AS now' },
      ]);
      return Number((last.at(-1) as [{ now: number }])[0].now);
    } catch (error) {
      const reason = reasonToBeginAgain(error, { hasRecords: records.length > 0, mayBeOwn: tx.commitUnknown });
      // The record is that of the earlier try.
      if (reason !== undefined && tx.commitUnknown && firstPack !== undefined && (await isStored(tx, firstPack)))
        return undefined;
      throw reason ?? error;
    }
  });
}

/** Fails with 1690 if a record is live. Otherwise takes it, for an answer that comes later. */
function claimRecords(records: readonly NewRecord[]): Statement[] {
  if (records.length === 0) return [];
  return [
    refuseLive(records, '@now'),
    insertRecords(
      records.map((record) => recordRow(record, '@now')),
      '@now',
    ),
  ];
}

/** Locks queues or topics, shared, in id order. */
function lockRows(table: 'queue' | 'topic', rows: readonly Versioned[]): Statement {
  return {
    sql: `SELECT id, version
       FROM ${table} FORCE INDEX (PRIMARY)
       WHERE id IN (?)
         AND name IS NOT NULL
       ORDER BY id
       LOCK IN SHARE MODE`,
    values: [rows.map(({ id }) => id)],
  };
}

/** Throws {@link SettingsChanged} if one was deleted, or changed since it was cached. */
function checkVersions(used: readonly Versioned[], locked: readonly Versioned[]): void {
  const versions = new Map(locked.map(({ id, version }) => [id, version]));
  if (used.some(({ id, version }) => versions.get(id) !== version)) throw new SettingsChanged('it has another version');
}
