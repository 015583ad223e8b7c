import { setTimeout as sleep } from 'node:timers/promises';
import { type PeerQueue, type PeerClient, type Plan, PullConsumers, type Sink } from '../client.js';
import { serve } from '../serve.js';
import { openPool, type PgPool, queryCount } from './postgres.js';

interface Row {
  /** A bigint: node-postgres returns it as text. */
  msg_id: string;
  message: { body: string };
}

/** Messages that are not deleted by then come again: the `vt` of its documentation's examples. */
const VISIBILITY_SECONDS = 30;
const EMPTY_PAUSE_MS = 2;
const POLL_SECONDS = 5;
/** The default of 100 ms would be most of the latency. */
const POLL_INTERVAL_MS = 10;

/**
 * pgmq as its documentation shows it: plain SQL calls of `send`, `send_batch`, `read` and `delete`
 * (https://pgmq.github.io/pgmq/api/sql/functions/). Steady consumers wait with `read_with_poll`.
 */
class PgmqClient implements PeerClient {
  private pool!: PgPool;

  async connect(address: string, options: { poolSize: number }): Promise<void> {
    this.pool = openPool(address, options.poolSize);
    return Promise.resolve();
  }

  async openQueue(plan: Plan): Promise<PeerQueue> {
    const { pool } = this;
    const { queue } = plan;
    await pool.query('SELECT pgmq.create($1)', [queue]);
    let consumers: PullConsumers | undefined;
    return {
      enqueue: async (bodies) => {
        const messages = bodies.map((body) => JSON.stringify({ body }));
        if (plan.kind === 'batch') await pool.query('SELECT pgmq.send_batch($1, $2::jsonb[])', [queue, messages]);
        else await pool.query('SELECT pgmq.send($1, $2::jsonb)', [queue, messages[0]]);
      },
      consume: async (sink) => {
        consumers = new PullConsumers(plan.consumers, sink, async () => this.readAndDelete(plan, sink));
        return Promise.resolve();
      },
      remaining: async () => queryCount(pool, `SELECT count(*) FROM pgmq."q_${queue}"`),
      close: async () => consumers?.stop(),
    };
  }

  private async readAndDelete(plan: Plan, sink: Sink): Promise<number> {
    const { queue } = plan;
    const messages = await this.read(plan);
    if (messages.length === 0) {
      await sleep(EMPTY_PAUSE_MS);
      return 0;
    }
    for (const { message } of messages) sink.received(message.body);
    const ids = messages.map(({ msg_id: id }) => id);
    const deleted = await this.pool.query('SELECT pgmq.delete($1, $2::bigint[])', [queue, ids]);
    return deleted.rows.length;
  }

  private async read({ kind, queue, batch }: Plan): Promise<Row[]> {
    const columns = 'SELECT msg_id, message';
    const { rows } =
      kind === 'steady'
        ? await this.pool.query(`${columns} FROM pgmq.read_with_poll($1, $2::int, $3::int, $4::int, $5::int)`, [
            queue,
            VISIBILITY_SECONDS,
            batch,
            POLL_SECONDS,
            POLL_INTERVAL_MS,
          ])
        : await this.pool.query(`${columns} FROM pgmq.read($1, $2::int, $3::int)`, [queue, VISIBILITY_SECONDS, batch]);
    return rows as Row[];
  }

  async analyse(): Promise<void> {
    await this.pool.query('ANALYZE');
  }

  async close(): Promise<void> {
    await this.pool.end();
  }
}

/** Entry of the client's process. */
export function main(): void {
  serve(new PgmqClient());
}
