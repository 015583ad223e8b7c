import { TransactionalQueue } from '@rowmq/typeorm/adapter';
import type { Knex } from 'knex';
import { z } from 'zod';

export const orders = new TransactionalQueue('orders', {
  adapter: (trx: Knex.Transaction) => ({
    read: async (sql) => ((await trx.raw(sql)) as [object[]])[0],
    write: async (sql) => trx.raw(sql) as Promise<unknown>,
  }),
  schema: z.object({ article: z.string() }),
  database: process.env['ROWMQ_DATABASE'],
});

export async function placeOrder(knex: Knex, article: string): Promise<string> {
  return knex.transaction(
    async (trx) => {
      await trx('orders').insert({ article });
      return orders.enqueue(trx, { article });
    },
    { isolationLevel: 'read committed' },
  );
}
