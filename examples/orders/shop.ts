import 'reflect-metadata';
import { Body, Controller, Module, Post, StandardSchemaValidationPipe } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { InjectQueue, type Queue } from '@rowmq/client';
import { broker } from './broker.js';
import { order, type Order, ORDERS, ordersQueues } from './order.js';

@Controller('orders')
class OrdersController {
  constructor(@InjectQueue(ORDERS) private readonly orders: Queue<Order>) {}

  /** Answers once the order is durable. The mailer handles it later. */
  @Post()
  async place(@Body({ schema: order }) placed: Order): Promise<{ id: string }> {
    return { id: await this.orders.enqueue(placed) };
  }
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
