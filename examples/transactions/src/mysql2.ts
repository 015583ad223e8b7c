import { TransactionalQueue } from '@rowmq/typeorm/adapter';
import type { Pool, PoolConnection } from 'mysql2/promise';
import { z } from 'zod';

export const orders = new TransactionalQueue('orders', {
  adapter: (connection: PoolConnection) => ({
    read: async (sql) => (await connection.query(sql))[0],
    write: async (sql) => connection.query(sql),
  }),
  schema: z.object({ article: z.string() }),
  database: process.env['ROWMQ_DATABASE'],
});

export async function placeOrder(pool: Pool, article: string): Promise<string> {
  const connection = await pool.getConnection();
  try {
    await connection.query('SET TRANSACTION ISOLATION LEVEL READ COMMITTED');
    await connection.beginTransaction();
    await connection.query('INSERT INTO orders (article) VALUES (?)', [article]);
    const id = await orders.enqueue(connection, { article });
    await connection.commit();
    return id;
  } catch (error) {
    await connection.rollback();
    throw error;
  } finally {
    connection.release();
  }
}
