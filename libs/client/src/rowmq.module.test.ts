import 'reflect-metadata';
import { Inject, Injectable, Module } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { expect, it } from 'vitest';
import { RowmqHttpClient } from './rowmq-http-client.js';
import { RowmqModule } from './rowmq.module.js';

@Injectable()
class Shop {
  constructor(@Inject(RowmqHttpClient) readonly client: RowmqHttpClient) {}
}

@Module({ imports: [RowmqModule.forRoot({ url: 'http://127.0.0.1:1' })], providers: [Shop] })
class ShopModule {}

it('gives the client to whoever imports the module, and closes it with the application', async () => {
  const app = await Test.createTestingModule({ imports: [ShopModule] }).compile();
  await app.init();
  const { client } = app.get(Shop);
  expect(client.url).toBe('http://127.0.0.1:1');
  await app.close();
  await expect(client.dequeue('orders')).rejects.toThrow(/destroyed/);
});
