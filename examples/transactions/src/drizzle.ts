import { TransactionalQueue } from '@rowmq/typeorm/adapter';
import { sql } from 'drizzle-orm';
import { int, mysqlTable, varchar } from 'drizzle-orm/mysql-core';
import type { MySql2Database } from 'drizzle-orm/mysql2';
import { z } from 'zod';

type Transaction = Parameters<Parameters<MySql2Database['transaction']>[0]>[0];

const orderTable = mysqlTable('orders', {
  id: int().primaryKey().autoincrement(),
  article: varchar({ length: 100 }).notNull(),
});

export const orders = new TransactionalQueue('orders', {
  adapter: (tx: Transaction) => ({
    read: async (text) => (await tx.execute(sql.raw(text)))[0],
    write: async (text) => tx.execute(sql.raw(text)),
  }),
  schema: z.object({ article: z.string() }),
  database: process.env['ROWMQ_DATABASE'],
});

export async function placeOrder(db: MySql2Database, article: string): Promise<string> {
  return db.transaction(
    async (tx) => {
      await tx.insert(orderTable).values({ article });
      return orders.enqueue(tx, { article });
    },
    { isolationLevel: 'read committed' },
  );
}
