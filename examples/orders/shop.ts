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
import { BrokerUnreachableError, InjectQueue, type Queue, RowmqError } from '@rowmq/client';
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
      if (!(error instanceof RowmqError) && !(error instanceof BrokerUnreachableError)) throw error;
      throw new ServiceUnavailableException(explanationOf(error), { cause: error });
    }
  }
}

/** The customer must know whether to order again. */
function explanationOf(error: RowmqError | BrokerUnreachableError): string {
  const isInDoubt =
    error instanceof BrokerUnreachableError ? error.outcome === 'unknown' : error.code === 'database-unavailable';
  return isInDoubt
    ? 'The order may have been placed; look at your mail before you place it again.'
    : 'The order was not placed; place it again later.';
}

@Module({
  imports: [broker, ordersQueues],
  controllers: [OrdersController],
})
class ShopModule {}

const app = await NestFactory.create(ShopModule, new FastifyAdapter());
app.useGlobalPipes(new StandardSchemaValidationPipe());
app.enableShutdownHooks();
await app.listen(Number(process.env['SHOP_PORT'] ?? 3000), '127.0.0.1');
console.log(`shop takes orders at ${await app.getUrl()}/orders`);
