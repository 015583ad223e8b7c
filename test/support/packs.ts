import { encodePack } from '../../libs/store/src/messages/pack.codec.js';

/** A statement as every kind of connection in the tests takes it. */
interface Insert {
  sql: string;
  values: unknown[];
}

/** A message that is the only one of its pack. Times are ms since 1970. */
export interface LonelyMessage {
  /** Also the message's id. */
  packId: Buffer;
  queueId: number;
  body: string;
  /** Default: that of the default priority. */
  priorityRank?: number;
  availableAt: number;
  expiresAt: number;
}

/**
 * The two statements of an enqueue, for tests that step through one by hand, or that need as many
 * packs as messages.
 */
export function storeLonely(messages: readonly LonelyMessage[]): [pack: Insert, delivery: Insert] {
  const packs = messages.map(({ packId, queueId, body, expiresAt }) => [
    packId,
    queueId,
    1,
    expiresAt,
    encodePack([{ body: Buffer.from(body), headers: null }]),
  ]);
  const deliveries = messages.map(({ packId, queueId, priorityRank = 5, availableAt, expiresAt }) => [
    queueId,
    packId,
    Buffer.alloc(8),
    0,
    1,
    priorityRank,
    availableAt,
    expiresAt,
    0,
  ]);
  return [
    { sql: 'INSERT INTO pack (id, queue_id, count, expires_at, payload) VALUES ?', values: [packs] },
    {
      sql: `INSERT INTO delivery
         (queue_id, pack_id, lease_token, part, members, priority_rank, available_at, expires_at, receive_count)
       VALUES ?`,
      values: [deliveries],
    },
  ];
}
