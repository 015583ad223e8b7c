import { type Filter, indexInPack, matches, messageIdIn, messageIdTime, readHeaders } from '@rowmq/contract';
import pRetry from 'p-retry';
import { isDefinitionChanged } from '../database/database-errors.js';
import type { Database } from '../database/database.js';
import type { Session } from '../database/session.js';
import { owedMembers, startSnapshot } from '../partitions/partition.sql.js';
import { readFilter } from '../topics/topic.js';
import { common, firstMembers, indexesOf, type Members, without } from './members.js';
import type { Content } from './pack.codec.js';
import { decodeOrLog, type StoredPack } from './stored-pack.js';

/** A pack, and which of its messages have begun in a queue. */
export interface SettledPack {
  id: Buffer;
  /** Settled, but not by a cancel or a purge. */
  settled: Members;
  owed: Members;
  /** The filter by which the queue gets messages of the pack's topic. Null: it gets all. */
  filter: Filter | null;
}

/** The result of one step of a walk through the packs of all queues. */
export interface SettledStretch {
  /** The queue's packs, in the order of their ids. */
  packs: SettledPack[];
  /** The next step begins after this pack's id. Null after the last step. */
  next: Buffer | null;
}

/** A settled message. */
export interface SettledMessage extends Content {
  id: Buffer;
}

interface PackRow {
  id: Buffer;
  queueId: number | null;
  topicId: number | null;
  count: number;
}

/** A topic to which the queue subscribes, and since when. */
interface SubscriptionRow {
  topicId: number;
  filter: string | null;
  createdAt: number;
}

/**
 * Finds what is settled and still stored. `pack` has no index of queues, so a walk goes through the
 * packs of all queues in the order of their ids, which is that of time.
 */
export class SettledRepository {
  constructor(private readonly database: Database) {}

  /**
   * Finds the packs of a queue among the next `rows` packs of all queues between two ids, both
   * exclusive. Packs of topics to which it subscribes belong to it, as far as they are younger than
   * the subscription.
   *
   * One snapshot covers packs and deliveries, so it contains a delivery that moves between queues.
   * A settled message stays settled. It takes no locks.
   */
  async find(queueId: number, after: Buffer, before: Buffer, rows: number): Promise<SettledStretch> {
    return this.database.exclusive((session) =>
      pRetry(
        async () => {
          await startSnapshot(session);
          const packs = await session.read<PackRow>(
            `(SELECT id, queue_id AS queueId, topic_id AS topicId, count FROM pack FORCE INDEX (PRIMARY) WHERE id > ? AND id < ? ORDER BY id LIMIT ?)
             UNION ALL
             (SELECT id, queue_id, topic_id, count FROM pack_overflow FORCE INDEX (PRIMARY) WHERE id > ? AND id < ? ORDER BY id LIMIT ?)
             ORDER BY id
             LIMIT ?`,
            [after, before, rows, after, before, rows, rows],
          );
          const subscriptions = await session.read<SubscriptionRow>(
            `SELECT topic_id AS topicId, filter, created_at AS createdAt
             FROM subscription FORCE INDEX (subscription_by_queue)
             WHERE queue_id = ?`,
            [queueId],
          );
          const filterOf = filters(queueId, subscriptions);
          const own = packs.flatMap((pack) => {
            const filter = filterOf(pack);
            return filter === undefined ? [] : [{ ...pack, filter }];
          });
          const [first, last] = [own[0]?.id, own.at(-1)?.id];
          const [owedOf, withdrawnOf] =
            first === undefined || last === undefined
              ? [new Map<string, Members>(), new Map<string, Members>()]
              : [
                  await owedMembers(session, first, last, queueId),
                  await withdrawnMembers(session, queueId, first, last),
                ];
          await session.write('COMMIT');
          return {
            packs: own.map(({ id, count, filter }) => {
              const all = firstMembers(count);
              const owed = common(all, owedOf.get(id.toString('hex')) ?? 0);
              const withdrawn = withdrawnOf.get(id.toString('hex')) ?? 0;
              return { id, settled: without(without(all, owed), withdrawn), owed, filter };
            }),
            next: packs.length < rows ? null : (packs.at(-1)?.id ?? null),
          };
        },
        {
          retries: 3,
          minTimeout: 0,
          // A reaper changed the table's partitions after the snapshot.
          shouldRetry: ({ error }) => isDefinitionChanged(error),
        },
      ),
    );
  }

  /**
   * Reads the settled messages of packs, in the order of the packs. It omits messages that were
   * reaped meanwhile, and those of unreadable packs.
   */
  async read(packs: readonly SettledPack[]): Promise<SettledMessage[]> {
    const ids = packs.filter(({ settled }) => settled !== 0).map(({ id }) => id);
    if (ids.length === 0) return [];
    const rows = await this.database.read<StoredPack>(
      `SELECT id, count, payload FROM pack FORCE INDEX (PRIMARY) WHERE id IN (?)
       UNION ALL
       SELECT id, count, payload FROM pack_overflow FORCE INDEX (PRIMARY) WHERE id IN (?)`,
      [ids, ids],
    );
    const contents = new Map(rows.map((row) => [row.id.toString('hex'), decodeOrLog(row)]));
    return packs.flatMap(({ id, settled, filter }) =>
      Array.from(indexesOf(settled), (index) => messageIdIn(id, index)).flatMap((messageId) => {
        const content = contents.get(id.toString('hex'))?.[indexInPack(messageId)];
        return content === undefined || !matches(filter, readHeaders(content.headers))
          ? []
          : { id: messageId, ...content };
      }),
    );
  }
}

/** Tells the filter of a pack whose messages the queue may have got. Undefined: it got none. */
function filters(
  queueId: number,
  subscriptions: readonly SubscriptionRow[],
): (pack: PackRow) => Filter | null | undefined {
  const byTopic = new Map(
    subscriptions.map(({ topicId, filter, createdAt }) => [topicId, { filter: readFilter(filter), createdAt }]),
  );
  return ({ id, queueId: enqueuedIn, topicId }) => {
    if (enqueuedIn === queueId) return null;
    const subscription = topicId === null ? undefined : byTopic.get(topicId);
    return subscription !== undefined && messageIdTime(id) >= subscription.createdAt ? subscription.filter : undefined;
  };
}

/** The messages that began in a queue and were cancelled or purged. */
async function withdrawnMembers(
  session: Session,
  queueId: number,
  first: Buffer,
  last: Buffer,
): Promise<Map<string, Members>> {
  const rows = await session.read<{ packId: Buffer; members: number }>(
    `SELECT pack_id AS packId, BIT_OR(members) AS members
     FROM withdrawn FORCE INDEX (PRIMARY)
     WHERE pack_id >= ?
       AND pack_id <= ?
       AND queue_id = ?
     GROUP BY pack_id`,
    [first, last, queueId],
  );
  return new Map(rows.map(({ packId, members }) => [packId.toString('hex'), Number(members)]));
}
