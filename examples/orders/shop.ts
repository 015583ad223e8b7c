import 'reflect-metadata';
import {
  Body,
  Controller,
  Module,
  Post,
  ServiceUnavailableException,
  StandardSchemaValidationPipe,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { InjectQueue, isOutcomeUnknown, mayPass, type Queue, RowmqError } from '@rowmq/client';
import { broker } from './broker.js';
import { order, type Order, ORDERS, ordersQueues } from './order.js';

@Controller('orders')
class OrdersController {
  constructor(@InjectQueue(ORDERS) private readonly orders: Queue<Order>) {}

  /** Answers once the order is durable. The mailer handles it later. */
  @Post()
  async place(@Body({ schema: order }) placed: Order): Promise<{ id: string }> {
    try {
      return { id: await this.orders.enqueue(placed) };
    } catch (error) {
      const explanation = explanationOf(error);
      // A refusal that will not pass is a fault of the shop: Nest logs it, and answers 500.
      if (explanation === undefined) throw error;
      throw new ServiceUnavailableException(explanation, { cause: error });
    }
  }
}

/** Tells the customer whether to order again, if the failure may pass. */
function explanationOf(error: unknown): string | undefined {
  if (isOutcomeUnknown(error)) return 'The order may have been placed; look at your mail before you place it again.';
  const isFull = error instanceof RowmqError && error.code === 'queue-full';
  return mayPass(error) || isFull ? 'The order was not placed; place it again later.' : undefined;
}

@Module({
  imports: [broker, ordersQueues],
  controllers: [OrdersController],
})
class ShopModule {}

/** While the shop stops, an answer ends its connection. The stop would wait for idle ones. */
function endConnectionsAtStop(adapter: FastifyAdapter): FastifyAdapter {
  const fastify = adapter.getInstance();
  let isStopping = false;
  fastify.addHook('preClose', async () => {
    isStopping = true;
  });
  fastify.addHook('onSend', async (_request, reply) => {
    if (isStopping) void reply.header('connection', 'close');
  });
  return adapter;
}

const app = await NestFactory.create(ShopModule, endConnectionsAtStop(new FastifyAdapter()));
app.useGlobalPipes(new StandardSchemaValidationPipe());
app.enableShutdownHooks();
await app.listen(Number(process.env['SHOP_PORT'] ?? 3000), '127.0.0.1');
console.log(`shop takes orders at ${await app.getUrl()}/orders`);
