import { TransactionalQueue } from '@rowmq/typeorm';
import type { DataSource } from 'typeorm';
import { z } from 'zod';

export const orders = new TransactionalQueue('orders', {
  schema: z.object({ article: z.string() }),
  database: process.env['ROWMQ_DATABASE'],
});

export async function placeOrder(dataSource: DataSource, article: string): Promise<string> {
  return dataSource.transaction('READ COMMITTED', async (manager) => {
    await manager.query('INSERT INTO orders (article) VALUES (?)', [article]);
    return orders.enqueue(manager, { article });
  });
}
