import type { QueryRunner } from 'typeorm';
import type { RowmqMigration } from './migration.js';

/** Every table that this migration makes, in the order in which they are dropped. */
export const TABLES = ['broker', 'reaper_run', 'reaper_lease', 'delivery', 'pack_overflow', 'pack', 'queue'] as const;

const PACK_COLUMNS = `
        id BINARY(16) NOT NULL COMMENT 'UUIDv7 whose last five bits are zero: a message id is this plus its index',
        queue_id INT UNSIGNED NOT NULL COMMENT 'where it was enqueued: redrive sends it back there',
        count TINYINT UNSIGNED NOT NULL COMMENT 'number of messages',
        expires_at BIGINT UNSIGNED NOT NULL COMMENT 'when the last of its messages expires',
        payload VARBINARY(8000) NOT NULL COMMENT 'bodies and headers; pack.codec.ts documents the format',
        -- claim: the bodies of the claimed ids
        PRIMARY KEY (id)`;

/**
 * The tables. Times are milliseconds since 1970 on the database's clock.
 *
 * MySQL forbids foreign keys on partitioned tables; `docs/DESIGN.md` says which lock takes their
 * place.
 */
export class InitialSchema1700000000000 implements RowmqMigration {
  readonly name = 'InitialSchema1700000000000';
  readonly blocks = 'makes new tables, within a second or two; blocks nothing, because no process can run before it';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE queue (
        id INT UNSIGNED NOT NULL AUTO_INCREMENT,
        name VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NULL
          COMMENT 'NULL: deleted; the row stays until the reaper has removed its deliveries',
        lease_seconds INT UNSIGNED NOT NULL,
        message_ttl_seconds INT UNSIGNED NOT NULL,
        delay_seconds INT UNSIGNED NOT NULL,
        max_receives SMALLINT UNSIGNED NULL,
        dead_letter_queue_id INT UNSIGNED NULL,
        max_depth INT UNSIGNED NULL,
        paused TINYINT(1) NOT NULL DEFAULT 0,
        created_at BIGINT UNSIGNED NOT NULL,
        version INT UNSIGNED NOT NULL
          COMMENT 'counts the changes of this row: an enqueue that used another version stores nothing',
        PRIMARY KEY (id),
        -- every request: which queue is this
        UNIQUE KEY queue_by_name (name),
        -- delete of a queue: is it somebody's dead-letter queue
        KEY queue_by_dead_letter_queue (dead_letter_queue_id)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // The payload log: up to 32 messages a row, written once, never updated, no secondary index. A
    // range of ids is a range of time, so a partition is a span of time and its space comes back by
    // DROP PARTITION. The reaper splits p_max into spans ahead of their time.
    await runner.query(`
      CREATE TABLE pack (${PACK_COLUMNS}
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
      PARTITION BY RANGE COLUMNS (id) (PARTITION p_max VALUES LESS THAN (MAXVALUE))`);

    // Holds the rows of an overfull p_max while the reaper splits it without copying them.
    // It is empty at all other times.
    await runner.query(`
      CREATE TABLE pack_overflow (${PACK_COLUMNS}
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // Which messages of a pack are owed, to which queue, and from when on: one row for those that
    // share a fate. A claim, a nack or a move replaces rows; an ack clears members.
    await runner.query(`
      CREATE TABLE delivery (
        queue_id INT UNSIGNED NOT NULL,
        pack_id BINARY(16) NOT NULL,
        lease_token BINARY(8) NOT NULL
          COMMENT 'the fence: seconds of the claim or hand-off, and random bytes; zeros without a lease',
        part TINYINT UNSIGNED NOT NULL
          COMMENT 'the lowest member when the row was written: keeps keys unique under one token',
        members INT UNSIGNED NOT NULL
          COMMENT 'the messages of the pack that are owed: bit i is the message with index i',
        priority_rank TINYINT UNSIGNED NOT NULL
          COMMENT '9 - priority: ascending is hand-out order, and MariaDB 10.6 has no descending indexes',
        available_at BIGINT UNSIGNED NOT NULL
          COMMENT 'the whole state machine: whatever has available_at <= now can be claimed',
        expires_at BIGINT UNSIGNED NOT NULL,
        producer_expires_at BIGINT UNSIGNED NULL
          COMMENT 'the expiry that the producer gave: a move to another queue keeps it',
        receive_count SMALLINT UNSIGNED NOT NULL,
        nack_reason VARCHAR(200) NULL,
        -- ack, nack, extend, reap, redrive, purge: rows by key, locked in this order
        PRIMARY KEY (queue_id, pack_id, lease_token, part),
        -- claim: what is next in hand-out order
        KEY delivery_next (queue_id, priority_rank, available_at)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // One row names the reaper that works. Another takes it over by a conditional UPDATE when
    // its time has run out.
    await runner.query(`
      CREATE TABLE reaper_lease (
        name VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        holder VARCHAR(120) NULL,
        expires_at BIGINT UNSIGNED NOT NULL,
        PRIMARY KEY (name)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);
    await runner.query(`INSERT INTO reaper_lease (name, holder, expires_at) VALUES ('reaper', NULL, 0)`);

    await runner.query(`
      CREATE TABLE reaper_run (
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
        duty VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        reaper VARCHAR(120) NOT NULL,
        started_at BIGINT UNSIGNED NOT NULL,
        duration_ms INT UNSIGNED NOT NULL,
        count INT UNSIGNED NOT NULL,
        error VARCHAR(1000) NULL,
        PRIMARY KEY (id),
        -- GET /v1/admin/reaper and the pruning of this log: the last runs of one duty
        KEY reaper_run_by_duty (duty, id)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // Each running broker process, so that brokers can tell each other of ready messages.
    await runner.query(`
      CREATE TABLE broker (
        id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'UUID of the process',
        url VARCHAR(300) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'where it takes hints',
        token VARCHAR(43) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
          COMMENT 'the secret that a hint to this broker carries',
        heartbeat_at BIGINT UNSIGNED NOT NULL,
        -- heartbeat: its own row; the list of all brokers, some dozen rows, which needs no other index
        PRIMARY KEY (id)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);
  }

  async down(runner: QueryRunner): Promise<void> {
    for (const table of TABLES) await runner.query(`DROP TABLE IF EXISTS ${table}`);
  }
}
