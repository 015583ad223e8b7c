import 'reflect-metadata';
import { Controller, type LoggerService, Module, type Type } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Ctx, EventPattern, MessagePattern, Payload } from '@nestjs/microservices';
import type { DequeueRequest } from '@rowmq/contract';
import { firstValueFrom, of } from 'rxjs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { CallOptions } from '../broker-client.js';
import { BrokerUnreachableError } from '../http/broker-unreachable.error.js';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import { RowmqClient, RowmqRecord } from './rowmq.client.js';
import type { RowmqContext } from './rowmq.context.js';
import { RejectException, RetryException } from './rowmq.exceptions.js';
import { ROWMQ, RowmqServer } from './rowmq.server.js';

const NOWHERE = { url: 'http://127.0.0.1:1' };
const opened: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0).toReversed()) await close();
});

async function serve(
  broker: InMemoryBroker,
  controller: Type,
  logger: LoggerService | false = false,
): Promise<RowmqServer> {
  @Module({ controllers: [controller] })
  class ServiceModule {}
  const strategy = new RowmqServer({ ...NOWHERE, consumer: { waitSeconds: 1 } }, broker);
  const app = await NestFactory.createMicroservice(ServiceModule, { strategy, logger });
  opened.push(() => app.close());
  await app.listen();
  return strategy;
}

/** Is not there for its first dequeues. */
class LateBroker extends InMemoryBroker {
  constructor(private triesLeft: number) {
    super();
  }

  override async dequeue(queue: string, request?: DequeueRequest, options?: CallOptions) {
    if (this.triesLeft > 0) {
      this.triesLeft -= 1;
      throw new BrokerUnreachableError('away', 'http://nowhere', 'not-sent');
    }
    return super.dequeue(queue, request, options);
  }
}

/** Keeps what is logged. */
class Log implements LoggerService {
  readonly lines: string[] = [];
  private readonly keep = (level: string) => (line: unknown) => void this.lines.push(`${level}: ${String(line)}`);
  readonly log = this.keep('log');
  readonly warn = this.keep('warn');
  readonly error = this.keep('error');

  about(words: RegExp): string[] {
    return this.lines.filter((line) => words.test(line));
  }
}

describe('the transport', () => {
  it('hands what emit enqueues to the handler of its pattern', async () => {
    const broker = new InMemoryBroker();
    const seen: unknown[] = [];
    @Controller()
    class Orders {
      // oxlint-disable-next-line typescript/no-unnecessary-type-arguments -- without it Nest's type asks for a handler without a context
      @EventPattern<string>('orders.created', ROWMQ, { concurrency: 3 })
      created(@Payload() payload: unknown, @Ctx() context: RowmqContext) {
        const { priority, headers, receiveCount } = context.getMessage();
        seen.push([payload, priority, headers, receiveCount]);
        return of('one', 'two');
      }
    }
    const server = await serve(broker, Orders);
    const client = new RowmqClient(NOWHERE, broker);
    const id = await firstValueFrom(client.emit('orders.created', { article: 'tea' }));
    expect(id).toBeTypeOf('string');
    await broker.drained('orders.created');
    await firstValueFrom(
      client.emit('orders.created', new RowmqRecord({ article: 'jam' }, { priority: 9, headers: { a: 'b' } })),
    );
    await broker.drained('orders.created');
    expect(seen).toEqual([
      [{ article: 'tea' }, 4, {}, 1],
      [{ article: 'jam' }, 9, { a: 'b' }, 1],
    ]);
    expect(server.unwrap().map(({ queue, settings }) => [queue, settings.concurrency])).toEqual([
      ['orders.created', 3],
    ]);
  });

  it('nacks a message with the delay of RetryException, and dead-letters it on RejectException', async () => {
    const broker = new InMemoryBroker();
    await broker.putQueue('dead');
    await broker.putQueue('orders', { deadLetterQueue: 'dead' });
    @Controller()
    class Orders {
      @EventPattern('orders')
      handle(@Payload() payload: string) {
        if (payload === 'reject') throw new RejectException('never');
        if (payload === 'retry') throw new RetryException(100_000, 'again');
        if (payload === 'later') throw RetryException.later(100_000, 'not now');
        throw new Error('a defect');
      }
    }
    await serve(broker, Orders);
    const client = new RowmqClient(NOWHERE, broker);
    for (const payload of ['reject', 'retry', 'later', 'else']) await firstValueFrom(client.emit('orders', payload));
    await expect
      .poll(() => broker.messages('orders').map(({ body, nackReason }) => [body, nackReason]))
      .toEqual([
        ['"retry"', 'again'],
        ['"later"', 'not now'],
        ['"else"', expect.stringContaining('Internal server error')],
      ]);
    await expect.poll(() => broker.messages('dead')).toMatchObject([{ body: '"reject"', nackReason: 'never' }]);
    const [retried, putOff] = broker.messages('orders');
    expect((retried?.availableAt.getTime() ?? 0) - Date.now()).toBeGreaterThan(90_000);
    expect([retried?.receiveCount, putOff?.receiveCount]).toEqual([1, 0]);
  });

  it('logs once that the broker is away, once that it is back, and the outcome of a failed message', async () => {
    const broker = new LateBroker(3);
    @Controller()
    class Orders {
      @EventPattern('orders')
      handle(@Payload() payload: number): void {
        throw new Error(`a defect with ${payload}`);
      }
    }
    const log = new Log();
    await serve(broker, Orders, log);
    await broker.enqueue('orders', { messages: [{ body: '1' }] });
    await vi.waitUntil(() => log.about(/failed/).length > 0);
    expect(log.about(/read/)).toEqual([
      "warn: Queue 'orders' cannot be read, and the consumer tries again: BrokerUnreachableError: away",
      "log: Queue 'orders' can be read again.",
    ]);
    expect(log.about(/failed/)).toEqual([
      expect.stringMatching(
        /^warn: Message \S+ of queue 'orders', attempt 1 failed; it comes again in 1 s: .*Internal server error/,
      ),
    ]);
  });

  it('refuses send and @MessagePattern, and says why', async () => {
    const broker = new InMemoryBroker();
    await expect(firstValueFrom(new RowmqClient(NOWHERE, broker).send('orders', 1))).rejects.toThrow(
      /not an RPC channel/,
    );
    @Controller()
    class Orders {
      @MessagePattern('orders')
      answer(): string {
        return 'answer';
      }
    }
    await expect(serve(broker, Orders)).rejects.toThrow(/@MessagePattern\('orders'\) asks for answers/);
  });

  it('refuses several handlers of one queue', async () => {
    @Controller()
    class Orders {
      // oxlint-disable-next-line typescript/no-unnecessary-type-arguments -- without it Nest's type asks for a handler without a context
      @EventPattern<string>('orders')
      one(): void {}
      // oxlint-disable-next-line typescript/no-unnecessary-type-arguments -- without it Nest's type asks for a handler without a context
      @EventPattern<string>('orders')
      other(): void {}
    }
    await expect(serve(new InMemoryBroker(), Orders)).rejects.toThrow(
      /Several handlers have @EventPattern\('orders'\)/,
    );
  });

  it('refuses update without settings, and creates nothing', async () => {
    const broker = new InMemoryBroker();
    @Controller()
    class Orders {
      @EventPattern('orders')
      handle(@Payload() _payload: unknown): void {}
    }
    @Module({ controllers: [Orders] })
    class ServiceModule {}
    const strategy = new RowmqServer({ ...NOWHERE, update: true }, broker);
    const app = await NestFactory.createMicroservice(ServiceModule, { strategy, logger: false });
    opened.push(() => app.close());
    await expect(app.listen()).rejects.toThrow(/Queue 'orders' has update: true but no settings/);
    expect((await broker.listQueues()).queues).toEqual([]);
  });

  it('refuses to listen without a handler', async () => {
    @Controller()
    class Nothing {}
    await expect(serve(new InMemoryBroker(), Nothing)).rejects.toThrow(/RowmqServer has no handlers.*@EventPattern/);
  });

  it('accepts only names of queues as patterns', async () => {
    @Controller()
    class Orders {
      @EventPattern<object>({ cmd: 'orders' })
      handle(): void {}
    }
    await expect(serve(new InMemoryBroker(), Orders)).rejects.toThrow(/names no queue: a pattern is a queue's name/);
    const client = new RowmqClient(NOWHERE, new InMemoryBroker());
    await expect(firstValueFrom(client.emit({ cmd: 'orders' }, 1))).rejects.toThrow(/A pattern is a queue's name/);
  });
});
