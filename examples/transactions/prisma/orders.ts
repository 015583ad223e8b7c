import { TransactionalQueue } from '@rowmq/typeorm/adapter';
import { z } from 'zod';
import type { Prisma, PrismaClient } from './generated/client.js';

/** The compiler refuses the client itself, whose statements would run outside the transaction. */
type Transaction = Prisma.TransactionClient & { $connect?: never };

export const orders = new TransactionalQueue('orders', {
  adapter: (tx: Transaction) => ({
    read: async (sql) => tx.$queryRawUnsafe(sql),
    write: async (sql) => tx.$executeRawUnsafe(sql),
  }),
  schema: z.object({ article: z.string() }),
  database: process.env['ROWMQ_DATABASE'],
});

export async function placeOrder(prisma: PrismaClient, article: string): Promise<string> {
  return prisma.$transaction(
    async (tx) => {
      await tx.order.create({ data: { article } });
      return orders.enqueue(tx, { article });
    },
    { isolationLevel: 'ReadCommitted' },
  );
}
