-- The functions of pgmq that the benchmark calls, written from its documentation
-- (https://pgmq.github.io/pgmq/api/sql/functions/) for machines without the extension.
-- As there, each queue is a table of its own, and each function builds its statement.
CREATE SCHEMA pgmq;

CREATE TYPE pgmq.message_record AS (
  msg_id bigint,
  read_ct integer,
  enqueued_at timestamptz,
  vt timestamptz,
  message jsonb
);

CREATE FUNCTION pgmq.create(queue_name text) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
  EXECUTE format(
    'CREATE TABLE pgmq.%I (
       msg_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
       read_ct integer NOT NULL DEFAULT 0,
       enqueued_at timestamptz NOT NULL DEFAULT now(),
       vt timestamptz NOT NULL,
       message jsonb)',
    'q_' || queue_name);
  EXECUTE format('CREATE INDEX ON pgmq.%I (vt)', 'q_' || queue_name);
END $body$;

CREATE FUNCTION pgmq.send(queue_name text, msg jsonb) RETURNS SETOF bigint LANGUAGE plpgsql AS $body$
BEGIN
  RETURN QUERY EXECUTE format(
    'INSERT INTO pgmq.%I (vt, message) VALUES (clock_timestamp(), $1) RETURNING msg_id', 'q_' || queue_name)
  USING msg;
END $body$;

CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[]) RETURNS SETOF bigint LANGUAGE plpgsql AS $body$
BEGIN
  RETURN QUERY EXECUTE format(
    'INSERT INTO pgmq.%I (vt, message) SELECT clock_timestamp(), unnest($1) RETURNING msg_id', 'q_' || queue_name)
  USING msgs;
END $body$;

-- The oldest visible messages. They stay invisible to others for vt seconds.
CREATE FUNCTION pgmq.read(queue_name text, vt integer, qty integer) RETURNS SETOF pgmq.message_record LANGUAGE plpgsql AS $body$
BEGIN
  RETURN QUERY EXECUTE format(
    'UPDATE pgmq.%1$I AS message
     SET vt = clock_timestamp() + make_interval(secs => $1), read_ct = read_ct + 1
     FROM (
       SELECT msg_id FROM pgmq.%1$I
       WHERE vt <= clock_timestamp()
       ORDER BY msg_id
       LIMIT $2
       FOR UPDATE SKIP LOCKED) AS visible
     WHERE message.msg_id = visible.msg_id
     RETURNING message.msg_id, message.read_ct, message.enqueued_at, message.vt, message.message',
    'q_' || queue_name)
  USING vt, qty;
END $body$;

-- The same, but it waits for a message: it looks again after each interval.
CREATE FUNCTION pgmq.read_with_poll(
  queue_name text, vt integer, qty integer, max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100
) RETURNS SETOF pgmq.message_record LANGUAGE plpgsql AS $body$
DECLARE
  deadline timestamptz := clock_timestamp() + make_interval(secs => max_poll_seconds);
BEGIN
  WHILE clock_timestamp() < deadline LOOP
    RETURN QUERY SELECT * FROM pgmq.read(queue_name, vt, qty);
    IF FOUND THEN
      RETURN;
    END IF;
    PERFORM pg_sleep(poll_interval_ms / 1000.0);
  END LOOP;
END $body$;

CREATE FUNCTION pgmq.delete(queue_name text, msg_ids bigint[]) RETURNS SETOF bigint LANGUAGE plpgsql AS $body$
BEGIN
  RETURN QUERY EXECUTE format('DELETE FROM pgmq.%I WHERE msg_id = ANY ($1) RETURNING msg_id', 'q_' || queue_name)
  USING msg_ids;
END $body$;
