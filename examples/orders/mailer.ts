import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Consumer, type Message, OnMessage, Reject } from '@rowmq/client';
import { broker } from './broker.js';
import { type Order, ORDERS, ordersQueues } from './order.js';

@Consumer(ORDERS, { concurrency: 10, handlerTimeoutSeconds: 60 })
class Mailer {
  /**
   * If it returns, the message is acked. If it throws, the message comes again later, and after
   * five times it is dead-lettered.
   */
  @OnMessage()
  async mail({ customer, article, count }: Order, message: Message<Order>): Promise<void> {
    if (customer.endsWith('@example.invalid')) throw new Reject(`no mail can be sent to ${customer}`);
    await sendMail(customer, `Thank you for ordering ${count} × ${article}.`, message.signal);
    console.log(`mailed ${customer} about ${article} (message ${message.id}, received ${message.receiveCount} times)`);
  }
}

/** Takes a moment, as a mail server does. */
async function sendMail(_to: string, _text: string, signal: AbortSignal): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 20));
  signal.throwIfAborted();
}

@Module({
  imports: [broker, ordersQueues],
  providers: [Mailer],
})
class MailerModule {}

const app = await NestFactory.createApplicationContext(MailerModule);
app.enableShutdownHooks();
console.log('mailer waits for orders');
