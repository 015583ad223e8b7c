import type { RunningServer } from '../harness/rig.js';
import { costOf, idAt, type MessageCost, openSession, type SqlSession } from './session.js';

/** Messages of a transaction, and bytes of a body. */
const LOADS = [
  { messages: 1, bodyBytes: 200 },
  { messages: 18, bodyBytes: 200 },
  { messages: 60, bodyBytes: 200 },
  { messages: 400, bodyBytes: 200 },
  { messages: 100, bodyBytes: 1000 },
  { messages: 100, bodyBytes: 4096 },
] as const;

const LEASE_MS = 30_000;
const TTL_MS = 345_600_000;
const T0 = 1_800_000_000_000;

/** A pack has one bit for each of its messages. */
const PACK_MESSAGES = 32;
/** Two packs fit a page of InnoDB, and none goes to overflow pages. */
const PACK_BYTES = 8000;
const NO_TOKEN = `x'0000000000000000'`;

/** A message that a consumer holds: its row, its position in a pack, and its lease. */
interface Lease {
  id: string;
  index: number;
  token: string;
}

/** The parts of a transaction that stores, leases or settles messages. */
interface Moment {
  now: number;
  token: string;
}

/** A way to store messages, as the SQL of a message's life. */
interface Storage {
  tables: readonly string[];
  /** Messages that share a row. */
  perRow(bodyBytes: number): number;
  /** Stores rows that hold so many messages each. With a token, they are leased already. */
  enqueue(rows: readonly Row[], bodyBytes: number, moment: Moment & { leased: boolean }): string;
  /** Locks so many rows. */
  lock(rows: number, moment: Moment): string;
  /** Leases these rows and reads their messages. */
  lease(ids: readonly string[], moment: Moment): string;
  ack(leases: readonly Lease[], moment: Moment): string;
  /** Counts the messages that are not settled. */
  owed: string;
}

interface Row {
  id: string;
  messages: number;
}

const DELIVERY_COLUMNS = `priority_rank TINYINT UNSIGNED NOT NULL, available_at BIGINT UNSIGNED NOT NULL, expires_at BIGINT UNSIGNED NOT NULL,
  receive_count SMALLINT UNSIGNED NOT NULL, nack_reason VARCHAR(200) NULL`;
const DELIVERY_NEXT = 'KEY delivery_next (queue_id, priority_rank, available_at)';
/** A stretch stays in the first; the others only have to be there. */
const PARTITIONS = `PARTITION BY RANGE COLUMNS (id) (${Array.from({ length: 6 }, (_, hour) => `PARTITION p${hour} VALUES LESS THAN (${idAt(T0 + hour * 3_600_000, 0)})`).join(', ')}, PARTITION p_max VALUES LESS THAN (MAXVALUE))`;

function lock(columns: string, rows: number, { now }: Moment): string {
  return `SELECT ${columns} FROM a_delivery FORCE INDEX (delivery_next)
    WHERE queue_id = 1 AND priority_rank = 5 AND available_at BETWEEN ${now - 1} AND ${now}
    ORDER BY queue_id, priority_rank, available_at LIMIT ${rows} FOR UPDATE SKIP LOCKED`;
}

/** The first edition's: a message is a row of `message`, and its delivery is another. */
const ROWS: Storage = {
  tables: [
    `CREATE TABLE a_message (id BINARY(16) NOT NULL PRIMARY KEY, queue_id INT UNSIGNED NOT NULL, body VARBINARY(4096) NOT NULL,
       headers VARBINARY(1024) NULL, expires_at BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB ${PARTITIONS}`,
    `CREATE TABLE a_delivery (queue_id INT UNSIGNED NOT NULL, message_id BINARY(16) NOT NULL, lease_token BINARY(8) NOT NULL,
       ${DELIVERY_COLUMNS}, PRIMARY KEY (queue_id, message_id), ${DELIVERY_NEXT}) ENGINE=InnoDB`,
  ],
  perRow: () => 1,
  enqueue: (rows, bodyBytes, { now, token, leased }) => {
    const body = 'x'.repeat(bodyBytes);
    const state = leased ? `${token},5,${now + LEASE_MS},${now + TTL_MS},1` : `${NO_TOKEN},5,${now},${now + TTL_MS},0`;
    return `INSERT INTO a_message VALUES ${rows.map(({ id }) => `(${id},1,'${body}',NULL,${now + TTL_MS})`).join(',')};
      INSERT INTO a_delivery (queue_id, message_id, lease_token, priority_rank, available_at, expires_at, receive_count)
      VALUES ${rows.map(({ id }) => `(1,${id},${state})`).join(',')}`;
  },
  lock: (rows, moment) => lock('message_id AS id, available_at, expires_at, receive_count', rows, moment),
  lease: (ids, { now, token }) =>
    `UPDATE a_delivery FORCE INDEX (PRIMARY) SET available_at = ${now + LEASE_MS}, lease_token = ${token}, receive_count = receive_count + 1
     WHERE queue_id = 1 AND message_id IN (${ids.join(',')});
     SELECT id, body, headers FROM a_message WHERE id IN (${ids.join(',')})`,
  ack: (leases, { now }) =>
    `DELETE d FROM a_delivery d FORCE INDEX (PRIMARY)
     WHERE d.queue_id = 1 AND d.message_id IN (${leases.map(({ id }) => id).join(',')})
       AND d.lease_token IN (${tokensOf(leases)}) AND d.available_at > ${now}`,
  owed: 'SELECT COUNT(*) AS owed FROM a_delivery',
};

/** Messages share a row of `pack`, and a delivery while they share a fate. */
const PACKS: Storage = {
  tables: [
    `CREATE TABLE a_pack (id BINARY(16) NOT NULL PRIMARY KEY, queue_id INT UNSIGNED NOT NULL, count TINYINT UNSIGNED NOT NULL,
       payload BLOB NOT NULL) ENGINE=InnoDB ${PARTITIONS}`,
    `CREATE TABLE a_delivery (queue_id INT UNSIGNED NOT NULL, pack_id BINARY(16) NOT NULL, lease_token BINARY(8) NOT NULL,
       part TINYINT UNSIGNED NOT NULL, members INT UNSIGNED NOT NULL, ${DELIVERY_COLUMNS},
       PRIMARY KEY (queue_id, pack_id, lease_token, part), ${DELIVERY_NEXT}) ENGINE=InnoDB`,
  ],
  perRow: (bodyBytes) => Math.max(1, Math.min(PACK_MESSAGES, Math.floor(PACK_BYTES / bodyBytes))),
  enqueue: (rows, bodyBytes, { now, token, leased }) => {
    const state = leased ? `5,${now + LEASE_MS},${now + TTL_MS},1` : `5,${now},${now + TTL_MS},0`;
    const packs = rows.map(({ id, messages }) => `(${id},1,${messages},'${'x'.repeat(messages * bodyBytes)}')`);
    const deliveries = rows.map(
      ({ id, messages }) => `(1,${id},${leased ? token : NO_TOKEN},0,${2 ** messages - 1},${state})`,
    );
    return `INSERT INTO a_pack VALUES ${packs.join(',')};
      INSERT INTO a_delivery (queue_id, pack_id, lease_token, part, members, priority_rank, available_at, expires_at, receive_count)
      VALUES ${deliveries.join(',')}`;
  },
  lock: (rows, moment) =>
    lock('pack_id AS id, lease_token, part, members, available_at, expires_at, receive_count', rows, moment),
  lease: (ids, { now, token }) =>
    `UPDATE a_delivery FORCE INDEX (PRIMARY)
     SET available_at = ${now + LEASE_MS}, lease_token = ${token}, receive_count = receive_count + 1
     WHERE queue_id = 1 AND pack_id IN (${ids.join(',')}) AND lease_token = ${NO_TOKEN};
     SELECT id, count, payload FROM a_pack WHERE id IN (${ids.join(',')})`,
  ack: (leases, { now }) => {
    const acked = new Map<string, number>();
    for (const { id, index } of leases) acked.set(id, (acked.get(id) ?? 0) + 2 ** index);
    // MySQL's bit operators have 64 bits, so the complement of the acked bits is made here.
    const others = [...acked].map(([id, bits]) => `WHEN ${id} THEN ${0xffffffff - bits}`);
    const left = `members & CASE pack_id ${others.join(' ')} END`;
    const held = `queue_id = 1 AND pack_id IN (${[...acked.keys()].join(',')}) AND lease_token IN (${tokensOf(leases)}) AND available_at > ${now}`;
    // The DELETE comes first: a row that is to go is not written once more before.
    return `DELETE d FROM a_delivery d FORCE INDEX (PRIMARY) WHERE ${held} AND ${left} = 0;
      UPDATE a_delivery FORCE INDEX (PRIMARY) SET members = ${left} WHERE ${held}`;
  },
  owed: 'SELECT SUM(BIT_COUNT(members)) AS owed FROM a_delivery',
};

function tokensOf(leases: readonly Lease[]): string {
  return [...new Set(leases.map(({ token }) => token))].join(',');
}

/** By the names of the columns in bench/RESULTS.md. */
const CANDIDATES = [
  { name: 'row per message', storage: ROWS, handsOff: false },
  { name: 'packs', storage: PACKS, handsOff: false },
  { name: 'packs + hand-off', storage: PACKS, handsOff: true },
  { name: 'row + hand-off', storage: ROWS, handsOff: true },
] as const;

/** Costs of a message by the name of the storage. */
export type StorageCost = { messages: number; bodyBytes: number; costs: Record<string, MessageCost> };

/**
 * Enqueues, claims and acks in transactions of different sizes, on one connection. With hand-off,
 * an enqueue stores its messages leased, and nothing is claimed. Acks come in batches of the same
 * size, and shuffled: each message is acked up to one batch late.
 */
export async function measureStorages(server: RunningServer, seconds: number): Promise<StorageCost[]> {
  const measured: StorageCost[] = [];
  for (const load of LOADS) {
    const costs: Record<string, MessageCost> = {};
    for (const { name, storage, handsOff } of CANDIDATES) {
      costs[name] = await measureStorage(server, storage, { ...load, handsOff, seconds });
    }
    measured.push({ ...load, costs });
  }
  return measured;
}

async function measureStorage(
  server: RunningServer,
  storage: Storage,
  options: Load & { seconds: number },
): Promise<MessageCost> {
  const session = await openSession(server.url);
  try {
    for (const table of storage.tables) await session.run(table);
    const life = new Life(session, storage, options);
    const cost = await costOf(server, options.seconds, () => life.round());
    await life.assertOwed();
    return cost;
  } finally {
    await session.run('DROP TABLE IF EXISTS a_message, a_pack, a_delivery');
    await session.close();
  }
}

interface Load {
  messages: number;
  bodyBytes: number;
  handsOff: boolean;
}

/** The messages of one stretch: a round stores as many as it settles. */
class Life {
  private now = T0;
  private rowsMade = 0;
  private rounds = 0;
  /** Ordered by when they are acked. */
  private held: (Lease & { ackAt: number })[] = [];

  constructor(
    private readonly session: SqlSession,
    private readonly storage: Storage,
    private readonly options: Load,
  ) {}

  async round(): Promise<number> {
    const { storage, options } = this;
    this.now += 10;
    this.rounds += 1;
    const moment = { now: this.now, token: `x'${this.rounds.toString(16).padStart(16, '0')}'` };
    const rows = this.newRows();
    await this.transaction(storage.enqueue(rows, options.bodyBytes, { ...moment, leased: options.handsOff }));
    if (!options.handsOff) await this.claim(rows, moment);
    this.hold(rows, moment.token);
    if (this.held.length > options.messages) {
      await this.transaction(storage.ack(this.held.splice(0, options.messages), moment));
    }
    return options.messages;
  }

  /** Fails unless the database owes exactly the messages that are still held. */
  async assertOwed(): Promise<void> {
    const [row] = await this.session.run(this.storage.owed);
    const owed = Number(row?.['owed']);
    if (owed !== this.held.length) throw new Error(`${owed} messages are owed, and should be ${this.held.length}`);
  }

  /** An id leaves room for the index of each message of its pack. */
  private newRows(): Row[] {
    const { storage, options } = this;
    const perRow = storage.perRow(options.bodyBytes);
    return Array.from({ length: Math.ceil(options.messages / perRow) }, (_, row) => {
      this.rowsMade += 1;
      const id = idAt(this.now, this.rowsMade * PACK_MESSAGES);
      return { id, messages: Math.min(perRow, options.messages - row * perRow) };
    });
  }

  /** The first round trip tells which rows the second one leases. */
  private async claim(rows: readonly Row[], moment: Moment): Promise<void> {
    const locked = await this.session.run(`START TRANSACTION; ${this.storage.lock(rows.length, moment)}`);
    if (locked.length !== rows.length) throw new Error(`locked ${locked.length} rows instead of ${rows.length}`);
    const ids = locked.map(({ id }) => `x'${(id as Buffer).toString('hex')}'`);
    await this.session.run(`${this.storage.lease(ids, moment)}; COMMIT`);
  }

  private hold(rows: readonly Row[], token: string): void {
    const { messages } = this.options;
    const leases = rows.flatMap(({ id, messages: count }) =>
      Array.from({ length: count }, (_, index) => ({ id, index, token })),
    );
    const first = this.rounds * messages;
    for (const [index, lease] of leases.entries()) {
      this.held.push({ ...lease, ackAt: first + index + Math.random() * messages });
    }
    this.held.sort((one, other) => one.ackAt - other.ackAt);
  }

  private async transaction(sql: string): Promise<void> {
    await this.session.run(`START TRANSACTION; ${sql}; COMMIT`);
  }
}
