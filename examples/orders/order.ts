import { z } from 'zod';

/** What both services know of an order. */
export const order = z.object({
  customer: z.email(),
  article: z.string().min(1),
  count: z.int().min(1),
});

export type Order = z.output<typeof order>;

export const ORDERS = 'orders';
export const ORDERS_DEAD = 'orders-dead';
