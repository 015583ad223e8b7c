import { QUEUE_DEFAULTS } from '@rowmq/contract';

/** Inserts queues with the default settings, all by one statement. */
export async function insertQueues(
  connection: { query(sql: string, values: unknown[]): Promise<unknown> },
  names: readonly string[],
  now = Date.now(),
): Promise<void> {
  const { leaseSeconds, messageTtlSeconds, delaySeconds, deduplicationSeconds } = QUEUE_DEFAULTS;
  await connection.query(
    `INSERT INTO queue (name, lease_seconds, message_ttl_seconds, delay_seconds, deduplication_seconds, created_at,
       changed_at, version) VALUES ?`,
    [names.map((name) => [name, leaseSeconds, messageTtlSeconds, delaySeconds, deduplicationSeconds, now, now, 1])],
  );
}
