import {
  looksInside,
  matchesContent,
  matchesDelivery,
  type MessageFilter,
  messageIdTime,
  mostPackBytes,
  readHeaders,
} from '@rowmq/contract';
import type { Database } from '../database/database.js';
import { bitOf, common, type Members, union } from './members.js';
import type { Delivery } from './delivery.js';
import { readMoves } from './moves.js';
import { decodeOrLog, type StoredPack } from './stored-pack.js';

/** The payloads of packs that are read at a time, in bytes. One pack is always read. */
const READ_BYTES = 8 * 1024 * 1024;

/** The part of a delivery that a filter looks at. */
export type Selectable = Pick<Delivery, 'queueId' | 'sourceQueueId' | 'packId' | 'members' | 'nackReason' | 'moves'>;

/**
 * Finds out which messages of deliveries a filter selects. It reads packs only if the filter looks
 * inside, and only those of deliveries that meet its other conditions. Takes no locks.
 */
export async function select<Row extends Selectable>(
  database: Pick<Database, 'read'>,
  filter: MessageFilter,
  rows: readonly Row[],
): Promise<Map<Row, Members>> {
  const names = filter.source === undefined ? new Map<number, string>() : await namesOf(database, rows);
  const candidates = rows.filter((row) =>
    matchesDelivery(filter, {
      source: names.get(originOf(row)),
      nackReason: row.nackReason,
      moves: readMoves(row.moves),
      enqueuedAt: messageIdTime(row.packId),
    }),
  );
  if (!looksInside(filter)) return new Map(candidates.map((row) => [row, row.members]));
  const selected = new Map<Row, Members>();
  for (const some of inReads(candidates)) {
    const matching = await matchingMembers(database, filter, some);
    for (const row of some) {
      const members = common(row.members, matching.get(row.packId.toString('latin1')) ?? 0);
      if (members !== 0) selected.set(row, members);
    }
  }
  return selected;
}

/** The queue that a delivery left first, or that it is in. */
function originOf({ queueId, sourceQueueId }: Selectable): number {
  return sourceQueueId ?? queueId;
}

async function namesOf(database: Pick<Database, 'read'>, rows: readonly Selectable[]): Promise<Map<number, string>> {
  const ids = [...new Set(rows.map(originOf))];
  if (ids.length === 0) return new Map();
  const found = await database.read<{ id: number; name: string }>(
    'SELECT id, name FROM queue FORCE INDEX (PRIMARY) WHERE id IN (?) AND name IS NOT NULL',
    [ids],
  );
  return new Map(found.map(({ id, name }) => [id, name]));
}

/** Divides deliveries into parts whose packs may be read at a time. */
function* inReads<Row extends Selectable>(rows: readonly Row[]): Generator<Row[]> {
  let part: Row[] = [];
  let bytes = 0;
  for (const row of rows) {
    const packBytes = mostPackBytes(row.packId);
    if (part.length > 0 && bytes + packBytes > READ_BYTES) {
      yield part;
      [part, bytes] = [[], 0];
    }
    part.push(row);
    bytes += packBytes;
  }
  if (part.length > 0) yield part;
}

/** The messages of each pack that meet the conditions on body and headers. */
async function matchingMembers(
  database: Pick<Database, 'read'>,
  filter: MessageFilter,
  rows: readonly Selectable[],
): Promise<Map<string, Members>> {
  const ids = rows.map(({ packId }) => packId);
  const packs = await database.read<StoredPack>(
    `SELECT id, count, payload FROM pack FORCE INDEX (PRIMARY) WHERE id IN (?)
     UNION ALL
     SELECT id, count, payload FROM pack_overflow FORCE INDEX (PRIMARY) WHERE id IN (?)`,
    [ids, ids],
  );
  return new Map(
    packs.map((pack) => [
      pack.id.toString('latin1'),
      decodeOrLog(pack).reduce((members, { headers, body }, index) => {
        return matchesContent(filter, { headers: readHeaders(headers), body }) ? union(members, bitOf(index)) : members;
      }, 0),
    ]),
  );
}
