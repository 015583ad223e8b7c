import { RowmqModule } from '@rowmq/client';
import { z } from 'zod';

/** An order, as both services know it. */
export const order = z.object({
  customer: z.email(),
  article: z.string().min(1),
  count: z.int().min(1),
});

export type Order = z.output<typeof order>;

export const ORDERS = 'orders';
const ORDERS_DEAD = 'orders-dead';

/** For the modules of both services: the queue of orders, and its dead-letter queue. */
export const ordersQueues = RowmqModule.registerQueue(
  { name: ORDERS, schema: order, create: { deadLetterQueue: ORDERS_DEAD, maxReceives: 5, leaseSeconds: 10 } },
  { name: ORDERS_DEAD, create: true },
);
