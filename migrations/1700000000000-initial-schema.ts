import type { QueryRunner } from 'typeorm';
import type { RowmqMigration } from './migration.js';

/** Every table that this migration makes, in the order in which they are dropped. */
export const TABLES = [
  'audit',
  'dashboard_session',
  'api_key',
  'queue_minute',
  'schedule',
  'broker',
  'deduplication',
  'withdrawn',
  'job',
  'reaper_run',
  'reaper_lease',
  'message_group',
  'delivery',
  'pack_overflow',
  'pack',
  'subscription',
  'topic',
  'queue',
] as const;

const PACK_COLUMNS = `
        id BINARY(16) NOT NULL COMMENT 'UUIDv7 whose last five bits are zero: a message id is this plus its index',
        queue_id INT UNSIGNED NULL COMMENT 'where it was enqueued; NULL: it was published',
        topic_id INT UNSIGNED NULL COMMENT 'where it was published; NULL: it was enqueued',
        count TINYINT UNSIGNED NOT NULL COMMENT 'number of messages',
        expires_at BIGINT UNSIGNED NOT NULL COMMENT 'when the last of its messages expires',
        payload MEDIUMBLOB NOT NULL
          COMMENT 'bodies and headers; pack.codec.ts documents the format. Up to 8 KB stay in the row',
        -- claim: the bodies of the claimed ids
        PRIMARY KEY (id)`;

/**
 * The tables. Times are milliseconds since 1970 on the database's clock.
 *
 * MySQL forbids foreign keys on partitioned tables; `docs/storage.md` says which lock takes their
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
        dead_letter_expired TINYINT(1) NOT NULL DEFAULT 0
          COMMENT '1: messages that expire go to the dead-letter queue',
        max_depth INT UNSIGNED NULL,
        max_messages_per_second INT UNSIGNED NULL,
        max_long_polls INT UNSIGNED NULL,
        deduplication_seconds INT UNSIGNED NOT NULL,
        paused TINYINT(1) NOT NULL DEFAULT 0 COMMENT '1: consumers get nothing',
        producers_paused TINYINT(1) NOT NULL DEFAULT 0 COMMENT '1: enqueues are refused',
        ordering VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NULL
          COMMENT 'group: messages of one group are handed out in order; never changes',
        sqs MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL
          COMMENT 'JSON: the attributes and tags that only SQS knows; sqs-settings.ts documents it',
        created_at BIGINT UNSIGNED NOT NULL,
        changed_at BIGINT UNSIGNED NOT NULL COMMENT 'when its settings changed last',
        version INT UNSIGNED NOT NULL
          COMMENT 'counts the changes of this row: an enqueue that used another version stores nothing',
        PRIMARY KEY (id),
        -- every request: which queue is this
        UNIQUE KEY queue_by_name (name),
        -- delete of a queue: is it somebody's dead-letter queue
        KEY queue_by_dead_letter_queue (dead_letter_queue_id)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    await runner.query(`
      CREATE TABLE topic (
        id INT UNSIGNED NOT NULL AUTO_INCREMENT,
        name VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        deduplication_seconds INT UNSIGNED NOT NULL,
        created_at BIGINT UNSIGNED NOT NULL,
        version INT UNSIGNED NOT NULL
          COMMENT 'counts the changes of it and its subscriptions: a publish that used another version stores nothing',
        PRIMARY KEY (id),
        -- every request: which topic is this
        UNIQUE KEY topic_by_name (name)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // Only a transaction that holds the topic's row writes subscriptions. When a queue is deleted,
    // its subscriptions have ended, although their rows stay as long as the queue's row does.
    await runner.query(`
      CREATE TABLE subscription (
        topic_id INT UNSIGNED NOT NULL,
        queue_id INT UNSIGNED NOT NULL,
        filter TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL COMMENT 'JSON; NULL: every message matches',
        created_at BIGINT UNSIGNED NOT NULL,
        -- publish: the subscriptions of a topic
        PRIMARY KEY (topic_id, queue_id),
        -- last step of a queue's deletion: its subscriptions
        KEY subscription_by_queue (queue_id)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // The payload log: up to 32 messages a row, written once, never updated, no secondary index. A
    // range of ids is a range of time, so a partition is a span of time and its space comes back by
    // DROP PARTITION. The reaper splits p_max into spans ahead of their time.
    await runner.query(`
      CREATE TABLE pack (${PACK_COLUMNS}
      ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4
      PARTITION BY RANGE COLUMNS (id) (PARTITION p_max VALUES LESS THAN (MAXVALUE))`);

    // Holds the rows of an overfull p_max while the reaper splits it without copying them.
    // It is empty at all other times.
    await runner.query(`
      CREATE TABLE pack_overflow (${PACK_COLUMNS}
      ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4`);

    // Which messages of a pack are owed, to which queue, and from when on: one row for those that
    // share a fate. A claim, a nack or a move replaces rows; an ack clears members.
    await runner.query(`
      CREATE TABLE delivery (
        queue_id INT UNSIGNED NOT NULL,
        pack_id BINARY(16) NOT NULL,
        lease_token BINARY(8) NOT NULL
          COMMENT 'the fence: seconds of the claim or hand-off, and random bytes; zeros without a lease',
        part SMALLINT UNSIGNED NOT NULL
          COMMENT '32 * copy + the lowest member when the row was written: keeps keys unique under one token',
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
        first_received_at BIGINT UNSIGNED NULL COMMENT 'when it was handed out first; void while receive_count is 0',
        nack_reason VARCHAR(200) NULL,
        group_key BIGINT UNSIGNED NULL COMMENT 'in an ordered queue: the first 48 bits of a hash of the group id',
        delayed_until BIGINT UNSIGNED NULL
          COMMENT 'of a message that waits behind its group: the end of its delay or lease',
        source_queue_id INT UNSIGNED NULL
          COMMENT 'the queue that it left first, where redrive sends it; NULL in that queue',
        moves VARCHAR(8000) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL
          COMMENT 'JSON: when and why it moved from queue to queue; moves.ts documents it. NULL: it never moved',
        -- ack, nack, extend, reap, redrive, purge: rows by key, locked in this order
        PRIMARY KEY (queue_id, pack_id, lease_token, part),
        -- claim: what is next in hand-out order
        KEY delivery_next (queue_id, priority_rank, available_at)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // The first use of each deduplicationId and Idempotency-Key, and the answer that a repeat gets.
    // An enqueue writes it in its own transaction, and takes over a row that has expired.
    await runner.query(`
      CREATE TABLE deduplication (
        kind TINYINT UNSIGNED NOT NULL
          COMMENT 'Idempotency-Key (1) or deduplicationId (2) in a queue; the same (3, 4) in a topic',
        scope_id INT UNSIGNED NOT NULL COMMENT 'the queue or the topic; their ids are never used again',
        digest BINARY(16) NOT NULL COMMENT 'the first half of the SHA-256 of the key or id',
        request_digest BINARY(16) NULL COMMENT 'of the messages that came with an Idempotency-Key',
        answer VARBINARY(1800) NOT NULL COMMENT 'ids of messages; recorded-answer.ts documents the format',
        expires_at BIGINT UNSIGNED NOT NULL,
        -- enqueue: insert, or find the first use; rows are locked in this order
        PRIMARY KEY (kind, scope_id, digest),
        -- remove-deduplication: what has expired
        KEY deduplication_by_expiry (expires_at)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // The messages that a cancel, a drop or a purge has settled, so that a replay leaves them out.
    // No other verb writes it.
    await runner.query(`
      CREATE TABLE withdrawn (
        pack_id BINARY(16) NOT NULL,
        queue_id INT UNSIGNED NOT NULL COMMENT 'where its deliveries began',
        how TINYINT UNSIGNED NOT NULL COMMENT '1: cancelled, 2: purged, 3: dropped',
        members INT UNSIGNED NOT NULL COMMENT 'the messages of the pack: bit i is the message with index i',
        -- cancel, drop, purge: rows by key, locked in this order; replay, forget-withdrawn: a range of packs
        PRIMARY KEY (pack_id, queue_id, how)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // An operator asks for a job, and a broker carries it out, a batch at a time.
    // Each batch counts itself here, in the transaction in which it changes deliveries.
    await runner.query(`
      CREATE TABLE job (
        id BINARY(16) NOT NULL COMMENT 'UUIDv7',
        kind VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'redrive, drop or purge',
        queue_id INT UNSIGNED NOT NULL,
        queue VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'its name, also after its deletion',
        target_queue_id INT UNSIGNED NULL COMMENT 'redrive: where to; NULL: to the queue that each message left first',
        target_queue VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NULL,
        filter TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'JSON, as in the request',
        patterns TEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL
          COMMENT 'JSON: names of the queues that the key reaches which asked for it; a redrive moves to these only',
        messages_per_second INT UNSIGNED NULL COMMENT 'NULL: as fast as batches go',
        max_messages INT UNSIGNED NULL,
        total BIGINT UNSIGNED NULL COMMENT 'messages in the queue at the start; NULL: too many to count',
        examined BIGINT UNSIGNED NOT NULL COMMENT 'messages that it has looked at',
        done BIGINT UNSIGNED NOT NULL COMMENT 'messages that it has moved or settled',
        skipped BIGINT UNSIGNED NOT NULL COMMENT 'messages that it wanted and could not move or settle',
        state VARCHAR(9) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'running, done, cancelled or failed',
        error VARCHAR(1000) NULL,
        last_pack_id BINARY(16) NOT NULL COMMENT 'the last pack in the queue at the start: later ones are not its business',
        after_pack_id BINARY(16) NOT NULL COMMENT 'where the next batch begins',
        pass TINYINT UNSIGNED NOT NULL COMMENT 'counts its walks through the queue: others may hold deliveries',
        left_over BIGINT UNSIGNED NOT NULL COMMENT 'messages that this walk left to the next',
        step INT UNSIGNED NOT NULL COMMENT 'counts the batches: tells whether a COMMIT without an answer succeeded',
        failures TINYINT UNSIGNED NOT NULL COMMENT 'batches that failed since the last one that did not',
        worker VARCHAR(120) NULL COMMENT 'the broker process that carries it out',
        worker_until BIGINT UNSIGNED NOT NULL COMMENT 'then another process may take it over',
        created_at BIGINT UNSIGNED NOT NULL,
        updated_at BIGINT UNSIGNED NOT NULL,
        finished_at BIGINT UNSIGNED NULL,
        -- a batch, a cancel: its own row; the list: a page of ids, newest first
        PRIMARY KEY (id),
        -- brokers: which jobs has nobody; forget-jobs: which have ended
        KEY job_by_end (finished_at, worker_until)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // The groups of ordered queues that owe messages. The row is the group's lock: an enqueue and
    // the end of the group's first message decide under it which message comes next.
    await runner.query(`
      CREATE TABLE message_group (
        queue_id INT UNSIGNED NOT NULL,
        group_key BIGINT UNSIGNED NOT NULL,
        last_pack_id BINARY(16) NOT NULL COMMENT 'every later pack of the group gets a higher id',
        -- enqueue, ack and moves in ordered queues: groups by key, locked in this order
        PRIMARY KEY (queue_id, group_key)
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
        pressure TINYINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'above 0: the database is slow, and the reaper yields',
        heartbeat_at BIGINT UNSIGNED NOT NULL,
        -- heartbeat: its own row; the list of all brokers, some dozen rows, which needs no other index
        PRIMARY KEY (id)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // The last day of each queue, minute by minute, for rates and charts. Brokers and reapers add
    // what they counted every ten seconds, each by one statement. No message depends on it.
    await runner.query(`
      CREATE TABLE queue_minute (
        minute INT UNSIGNED NOT NULL COMMENT 'since 1970',
        queue_id INT UNSIGNED NOT NULL,
        enqueued INT UNSIGNED NOT NULL DEFAULT 0,
        dequeued INT UNSIGNED NOT NULL DEFAULT 0,
        acked INT UNSIGNED NOT NULL DEFAULT 0,
        nacked INT UNSIGNED NOT NULL DEFAULT 0,
        dead_lettered INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'moved from here to the dead-letter queue',
        expired INT UNSIGNED NOT NULL DEFAULT 0,
        purged INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'purged or cancelled',
        redriven INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'moved from here to the queue that they had left',
        ready_count INT UNSIGNED NULL COMMENT 'when a reaper counted it, as the next four; NULL: it did not',
        delayed_count INT UNSIGNED NULL,
        leased_count INT UNSIGNED NULL,
        waiting_count INT UNSIGNED NULL,
        oldest_ready_seconds INT UNSIGNED NULL,
        -- counts: rows of this minute, locked in this order; rates: the last hour of all queues, or
        -- rows by key; keep-history: the oldest minutes
        PRIMARY KEY (minute, queue_id)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // When to enqueue which message again and again.
    await runner.query(`
      CREATE TABLE schedule (
        name VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        cron VARCHAR(200) NULL,
        every_seconds INT UNSIGNED NULL,
        time_zone VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
        queue VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NULL
          COMMENT 'a name: the queue may be deleted and created again',
        topic VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'a name, in place of a queue',
        message MEDIUMTEXT NOT NULL COMMENT 'as JSON, in the form of a request',
        enabled TINYINT(1) NOT NULL,
        missed VARCHAR(4) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'skip, last or all',
        next_at BIGINT UNSIGNED NULL COMMENT 'the first tick that nobody has enqueued',
        due_at BIGINT UNSIGNED NULL COMMENT 'when a reaper looks at it: at next_at, or some seconds after a failure',
        last_tick_at BIGINT UNSIGNED NULL,
        last_message_id BINARY(16) NULL,
        last_failure VARCHAR(1000) NULL,
        created_at BIGINT UNSIGNED NOT NULL,
        -- a change, a tick: its own row; the list: a page of names
        PRIMARY KEY (name),
        -- the reaper's duty: which ticks are due
        KEY schedule_due (due_at)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // The API keys. Every broker reads the whole table, which has a thousand rows at most.
    await runner.query(`
      CREATE TABLE api_key (
        name VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        id VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
          COMMENT 'the part of the secret that is not secret: a broker finds the key by it',
        secret_digest VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
          COMMENT 'SHA-256 of the secret in hexadecimal digits; the secret is not stored',
        old_digest VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'of the secret before the last rotation',
        old_until BIGINT UNSIGNED NULL COMMENT 'when the old secret ends',
        sealed_secret VARBINARY(200) NULL
          COMMENT 'the secret, encrypted with ROWMQ_SQS_SECRET_KEY, to check signatures; sealed-secret.ts documents it',
        old_sealed_secret VARBINARY(200) NULL COMMENT 'the same of the old secret',
        scopes VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'separated by commas',
        patterns VARCHAR(4200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
          COMMENT 'of names of queues and topics, separated by commas; empty: every name',
        messages_per_second INT UNSIGNED NULL COMMENT 'that the key may send to a broker; NULL: its setting',
        long_polls INT UNSIGNED NULL COMMENT 'dequeues that may wait on a broker; NULL: its setting',
        created_at BIGINT UNSIGNED NOT NULL,
        expires_at BIGINT UNSIGNED NULL,
        last_used_at BIGINT UNSIGNED NULL COMMENT 'to the minute',
        -- a change: its own row; the list: a page of names; a broker: all of them
        PRIMARY KEY (name),
        -- creation: no two keys have one id
        UNIQUE KEY api_key_by_id (id)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // The people who are logged in to the dashboard, on whatever broker. A login removes those that
    // have expired.
    await runner.query(`
      CREATE TABLE dashboard_session (
        digest VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
          COMMENT 'SHA-256 of the cookie in hexadecimal digits; the cookie is not stored',
        key_id VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'NULL: the key of the settings',
        key_digest VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
          COMMENT 'SHA-256 of the secret at the login: the session ends when the secret does',
        expires_at BIGINT UNSIGNED NOT NULL,
        -- a request, a logout: its own row
        PRIMARY KEY (digest),
        -- a login: how many has this key, and which of them are the oldest
        KEY session_by_key (key_digest, expires_at),
        -- a login: which have expired
        KEY session_by_expiry (expires_at)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);

    // The actions of administrators. The reaper keeps the last days, and at most a million rows.
    await runner.query(`
      CREATE TABLE audit (
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
        at BIGINT UNSIGNED NOT NULL,
        action VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'operationId of the call',
        path VARCHAR(1000) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        status SMALLINT UNSIGNED NOT NULL,
        problem VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'code of the refusal; NULL: it was done',
        key_name VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'NULL: no key, or a wrong one',
        address VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        request_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        changes TEXT NULL COMMENT 'JSON: each field that changed, with from and to',
        -- the list: pages, the latest first; prune-audit: the oldest
        PRIMARY KEY (id)
      ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`);
  }

  async down(runner: QueryRunner): Promise<void> {
    for (const table of TABLES) await runner.query(`DROP TABLE IF EXISTS ${table}`);
  }
}
