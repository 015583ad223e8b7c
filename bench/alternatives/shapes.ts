import type { RunningServer } from '../harness/rig.js';
import { costOf, idAt, type MessageCost, openSession } from './session.js';

const BATCH = 100;
const LEASE_MS = 30_000;
const TTL_MS = 345_600_000;
/** One statement deletes so many marked rows. */
const DELETE_ROWS = 1000;

/** The rows of one batch. */
interface Batch {
  ids: readonly string[];
  body: string;
  now: number;
}

/** A way to lay out messages in tables, as the statements of a lifecycle. */
interface Shape {
  name: string;
  tables: readonly string[];
  enqueue(batch: Batch): string;
  claim(batch: Batch): string;
  ack(batch: Batch): string;
  /** Runs once for every {@link DELETE_ROWS} messages. */
  tidy?: string;
  /** `binlog_row_image`; FULL when absent. */
  rowImage?: 'MINIMAL';
}

const DELIVERY_COLUMNS = `
  queue_id INT UNSIGNED NOT NULL, message_id BINARY(16) NOT NULL, priority_rank TINYINT UNSIGNED NOT NULL, available_at BIGINT UNSIGNED NOT NULL,
  expires_at BIGINT UNSIGNED NOT NULL, receive_count SMALLINT UNSIGNED NOT NULL, lease_token BINARY(8) NOT NULL DEFAULT 0x0000000000000000, nack_reason VARCHAR(200) NULL`;
const DELIVERY_KEYS = `PRIMARY KEY (queue_id, message_id), KEY delivery_next (queue_id, priority_rank, available_at)`;
const BODY_COLUMNS = `body VARBINARY(4096) NOT NULL, headers VARBINARY(1024) NULL`;

function lock(table: string, { now }: Batch): string {
  return `SELECT message_id, available_at, expires_at, receive_count FROM ${table} FORCE INDEX (delivery_next)
    WHERE queue_id = 1 AND priority_rank = 5 AND available_at BETWEEN ${now - 1} AND ${now}
    ORDER BY queue_id, priority_rank, available_at LIMIT ${BATCH} FOR UPDATE SKIP LOCKED`;
}

function lease(table: string, { ids, now }: Batch): string {
  return `UPDATE ${table} FORCE INDEX (PRIMARY) SET available_at = ${now + LEASE_MS}, lease_token = x'0102030405060708', receive_count = receive_count + 1
    WHERE queue_id = 1 AND message_id IN (${ids.join(',')})`;
}

function remove(table: string, { ids, now }: Batch): string {
  return `DELETE d FROM ${table} d FORCE INDEX (PRIMARY)
    WHERE d.queue_id = 1 AND d.message_id IN (${ids.join(',')}) AND d.lease_token = x'0102030405060708' AND d.available_at > ${now}`;
}

function split(name: string, message: string): Shape {
  return {
    name,
    tables: [
      `CREATE TABLE a_message (id BINARY(16) NOT NULL PRIMARY KEY, queue_id INT UNSIGNED NOT NULL, ${BODY_COLUMNS}, expires_at BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB ${message}`,
      `CREATE TABLE a_delivery (${DELIVERY_COLUMNS}, ${DELIVERY_KEYS}) ENGINE=InnoDB`,
    ],
    enqueue: ({ ids, body, now }) =>
      `INSERT INTO a_message VALUES ${ids.map((id) => `(${id},1,'${body}',NULL,${now + TTL_MS})`).join(',')};
       INSERT INTO a_delivery (queue_id, message_id, priority_rank, available_at, expires_at, receive_count) VALUES ${ids.map((id) => `(1,${id},5,${now},${now + TTL_MS},0)`).join(',')}`,
    claim: (batch) =>
      `${lock('a_delivery', batch)}; ${lease('a_delivery', batch)}; SELECT id, body, headers FROM a_message WHERE id IN (${batch.ids.join(',')})`,
    ack: (batch) => remove('a_delivery', batch),
  };
}

const ONE_TABLE: Shape = {
  name: 'one table; ack deletes',
  tables: [`CREATE TABLE a_delivery (${DELIVERY_COLUMNS}, ${BODY_COLUMNS}, ${DELIVERY_KEYS}) ENGINE=InnoDB`],
  enqueue: ({ ids, body, now }) =>
    `INSERT INTO a_delivery (queue_id, message_id, priority_rank, available_at, expires_at, receive_count, body) VALUES ${ids.map((id) => `(1,${id},5,${now},${now + TTL_MS},0,'${body}')`).join(',')}`,
  claim: (batch) =>
    `${lock('a_delivery', batch)}; ${lease('a_delivery', batch)}; SELECT message_id, body, headers FROM a_delivery WHERE queue_id = 1 AND message_id IN (${batch.ids.join(',')})`,
  ack: (batch) => remove('a_delivery', batch),
};

/** Settled rows stay in priority 255, where nothing is ever claimed, until they are deleted. */
const MARKED: Shape = {
  ...ONE_TABLE,
  name: 'one table; ack marks, DELETE later',
  ack: ({ ids, now }) =>
    `UPDATE a_delivery FORCE INDEX (PRIMARY) SET priority_rank = 255
     WHERE queue_id = 1 AND message_id IN (${ids.join(',')}) AND lease_token = x'0102030405060708' AND available_at > ${now}`,
  tidy: `DELETE FROM a_delivery WHERE queue_id = 1 AND priority_rank = 255 LIMIT ${DELETE_ROWS}`,
};

const PARTITIONS = `PARTITION BY RANGE COLUMNS (id) (${Array.from({ length: 48 }, (_, hour) => `PARTITION p${hour} VALUES LESS THAN (${idAt(1_800_000_000_000 + hour * 3_600_000, 0)})`).join(', ')}, PARTITION p_max VALUES LESS THAN (MAXVALUE))`;

const CHOSEN = split('message in partitions of an hour, delivery; ack deletes the delivery', PARTITIONS);

const SHAPES: readonly Shape[] = [
  CHOSEN,
  split('the same without partitions', ''),
  ONE_TABLE,
  MARKED,
  { ...CHOSEN, name: 'the first, binlog_row_image=MINIMAL', rowImage: 'MINIMAL' },
  { ...ONE_TABLE, name: 'one table; ack deletes, binlog_row_image=MINIMAL', rowImage: 'MINIMAL' },
];

export type ShapeCost = { shape: string; bodyBytes: number; cost: MessageCost };

/**
 * Lifecycles in batches of 100 on one connection, on tables of different shapes. Each of the three
 * transactions is committed.
 */
export async function measureShapes(server: RunningServer, seconds: number): Promise<ShapeCost[]> {
  const measured: ShapeCost[] = [];
  for (const bodyBytes of [200, 2000]) {
    for (const shape of SHAPES) measured.push(await measureShape(server, shape, bodyBytes, seconds));
  }
  return measured;
}

async function measureShape(
  server: RunningServer,
  shape: Shape,
  bodyBytes: number,
  seconds: number,
): Promise<ShapeCost> {
  const session = await openSession(server.url);
  const body = 'x'.repeat(bodyBytes);
  let now = 1_800_000_000_000;
  let made = 0;
  const transaction = (sql: string): Promise<unknown> => session.run(`START TRANSACTION; ${sql}; COMMIT`);
  const round = async (): Promise<number> => {
    now += 10;
    const ids = Array.from({ length: BATCH }, (_, index) => idAt(now, made + index));
    made += BATCH;
    const batch = { ids, body, now };
    await transaction(shape.enqueue(batch));
    await transaction(shape.claim(batch));
    await transaction(shape.ack(batch));
    if (shape.tidy !== undefined && made % DELETE_ROWS === 0) await transaction(shape.tidy);
    return BATCH;
  };
  try {
    await session.run(`SET SESSION binlog_row_image = '${shape.rowImage ?? 'FULL'}'`);
    for (const table of shape.tables) await session.run(table);
    const cost = await costOf(server, seconds, round);
    return { shape: shape.name, bodyBytes, cost };
  } finally {
    await session.run('DROP TABLE IF EXISTS a_message, a_delivery');
    await session.close();
  }
}
