/* oxlint-disable unicorn/no-thenable -- handlers may return such objects */
import { afterAll, describe, expect, it, vi } from 'vitest';
import { Queue } from '../queue/queue.js';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import type { ConsumerEvents } from './consumer-events.js';
import type { Message } from './message.js';
import { HandlerTimeoutError, Reject, Retry } from './outcomes.js';
import { sleep, StartedConsumers, useUnstalledClock } from './started-consumers.test-support.js';

/* Handlers and listeners may do anything: each message gets its outcome, the consumer goes on. */

useUnstalledClock();
const { consume, stop } = new StartedConsumers();
const uncaught: unknown[] = [];
const onUncaught = (error: unknown): void => void uncaught.push(error);
afterAll(stop);

async function filled(count: number): Promise<InMemoryBroker> {
  const broker = new InMemoryBroker();
  await new Queue(broker, 'orders').enqueueMany(Array.from({ length: count }, (_, index) => index));
  return broker;
}

/** Runs `work`, and fails if an error would have ended the process. */
async function withoutUncaught(work: () => Promise<void>): Promise<void> {
  const events = ['uncaughtException', 'unhandledRejection'] as const;
  const before = events.map((event) => process.rawListeners(event));
  for (const event of events) process.removeAllListeners(event).on(event, onUncaught);
  try {
    await work();
    await sleep(10);
  } finally {
    for (const [index, event] of events.entries()) {
      process.removeAllListeners(event);
      for (const listener of before[index] ?? []) process.on(event, listener as () => void);
    }
  }
  expect(uncaught.splice(0)).toEqual([]);
}

/** The first message, as the broker keeps it after its handler failed. */
async function failureOf(broker: InMemoryBroker) {
  await vi.waitUntil(() => broker.messages('orders').some(({ nackReason }) => nackReason !== undefined));
  const [{ nackReason, receiveCount, availableAt } = expect.fail('it is gone')] = broker.messages('orders');
  return { reason: nackReason as string, receiveCount, delayMs: availableAt.getTime() - Date.now() };
}

const throwing = (): never => {
  throw new Error('not even this works');
};
/** An asynchronous listener. */
const rejecting = (): void => Promise.reject(new Error('later')) as never;
const circular: Record<string, unknown> = { name: 'a circle' };
circular['self'] = circular;
const revoked = Proxy.revocable({}, {});
revoked.revoke();

describe('a message is nacked with back-off and a bounded reason when its handler', () => {
  const thrown: [what: string, value: () => unknown, reason: RegExp][] = [
    ['throws undefined', () => undefined, /^the handler threw undefined$/],
    ['throws null', () => null, /^the handler threw null$/],
    ['throws a text', () => 'no mail today', /^no mail today$/],
    ['throws an empty text', () => '', /^the handler threw ''$/],
    ['throws a number', () => 17, /^the handler threw 17$/],
    ['throws a BigInt', () => 17n, /17n/],
    ['throws a symbol', () => Symbol('odd'), /Symbol\(odd\)/],
    ['throws an error without a message', () => new RangeError(), /^RangeError$/],
    ['throws a huge error', () => new Error('x'.repeat(100_000)), /^x{200}$/],
    ['throws an error with half a surrogate pair', () => new Error('\ud800'), /^\ufffd$/],
    ['throws an error that is its own cause', () => Object.assign(new Error('a'), { cause: circular }), /^a$/],
    ['throws a circular object', () => circular, /a circle/],
    ['throws an object without a prototype', () => Object.create(null) as unknown, /null prototype/],
    ['throws an object whose message throws', () => Object.defineProperty({}, 'message', { get: throwing }), /threw/],
    [
      'throws an error whose message is a getter that throws',
      () => Object.defineProperty(new Error('b'), 'message', { get: throwing }),
      /./,
    ],
    ['throws an error whose message is a number', () => Object.assign(new Error('c'), { message: 5 }), /^Error$/],
    ['throws an object whose toString throws', () => ({ toString: throwing, [Symbol.toPrimitive]: throwing }), /./],
    [
      'throws an object that cannot be inspected',
      () => ({ [Symbol.for('nodejs.util.inspect.custom')]: throwing }),
      /./,
    ],
    ['throws a proxy that was revoked', () => revoked.proxy, /./],
    ['throws a function', () => throwing, /./],
  ];

  it.each(thrown)('%s', async (_, value, reason) => {
    const broker = await filled(1);
    await withoutUncaught(async () => {
      consume(broker, {
        message: () => {
          throw value();
        },
      });
      const failed = await failureOf(broker);
      expect(failed.reason).toMatch(reason);
      expect(failed.reason.length).toBeLessThanOrEqual(200);
      expect(failed.receiveCount).toBe(1);
      expect(failed.delayMs).toBeGreaterThan(0);
      expect(failed.delayMs).toBeLessThanOrEqual(1000);
    });
  });

  it.each<[string, () => unknown]>([
    ['returns a promise that rejects with undefined', async () => Promise.reject()], // oxlint-disable-line typescript/prefer-promise-reject-errors -- the case
    ['returns a thenable that throws', () => ({ then: throwing })],
    ['returns a thenable whose getter throws', () => Object.defineProperty({}, 'then', { get: throwing })],
    [
      'returns a thenable that rejects',
      () => ({ then: (_: unknown, reject: (error: Error) => void) => reject(new Error('no')) }),
    ],
    [
      'returns a thenable that rejects and then throws',
      () => ({ then: (_: unknown, reject: (error: Error) => void) => (reject(new Error('no')), throwing()) }),
    ],
  ])('%s', async (_, returned) => {
    const broker = await filled(1);
    await withoutUncaught(async () => {
      consume(broker, { message: returned });
      expect(await failureOf(broker)).toMatchObject({ receiveCount: 1 });
    });
  });

  it.each<[string, () => unknown]>([
    ['throws', throwing],
    ['returns no number', () => 'soon'],
    ['returns NaN', () => Number.NaN],
    ['returns a BigInt', () => 5n],
    ['returns a promise that rejects', async () => Promise.reject(new Error('no time'))],
    ['returns an object whose value throws', () => ({ valueOf: throwing })],
  ])('throws and its back-off %s', async (_, backoff) => {
    const broker = await filled(1);
    await withoutUncaught(async () => {
      consume(broker, { message: throwing }, { backoff: backoff as () => number });
      const { delayMs } = await failureOf(broker);
      expect(delayMs).toBeGreaterThan(0);
      expect(delayMs).toBeLessThanOrEqual(1000);
    });
  });
});

describe('a message is acked when its handler', () => {
  it.each<[string, () => unknown]>([
    ['returns null', () => null],
    ['returns false', () => false],
    ['returns an error instead of throwing it', () => new Error('returned')],
    ['returns a circular object', () => circular],
    ['returns a proxy that was revoked, inside an array', () => [revoked.proxy]],
    ['returns a thenable that resolves twice', () => ({ then: (resolve: () => void) => (resolve(), resolve()) })],
  ])('%s', async (_, returned) => {
    const broker = await filled(1);
    await withoutUncaught(async () => {
      consume(broker, { message: returned });
      await broker.drained('orders');
      expect(broker.messages('orders')).toEqual([]);
    });
  });
});

describe('a batch handler that settles messages with odd values', () => {
  it('nacks them without a delay and with a reason that is a text', async () => {
    const broker = await filled(3);
    await withoutUncaught(async () => {
      consume(
        broker,
        {
          batch: ([one, two, three]) => {
            one?.nack({ delayMs: Number.NaN, reason: 5 as never });
            two?.nack({ delayMs: 'soon' as never, reason: { toString: throwing } as never });
            three?.release({ delayMs: Infinity, reason: 'x'.repeat(1000) });
          },
        },
        { batchSize: 3, prefetch: 0, concurrency: 1 },
      );
      await vi.waitUntil(() => broker.messages('orders').every(({ nackReason }) => nackReason !== undefined));
      const [, , three] = broker.messages('orders');
      expect(three?.nackReason).toBe('x'.repeat(200));
      expect(three?.receiveCount).toBe(0);
      expect((three?.availableAt.getTime() ?? 0) - Date.now()).toBeGreaterThan(43_000_000);
    });
  });
});

describe('a schema', () => {
  const withSchema = (validate: (value: unknown) => unknown) =>
    ({ '~standard': { version: 1, vendor: 'test', validate } }) as never;

  it.each<[string, (value: unknown) => unknown, string]>([
    ['that throws fails the message, which comes again', throwing, 'not even this works'],
    [
      'that returns a thenable is awaited',
      (value) => ({ then: (resolve: (result: unknown) => void) => resolve({ value }) }),
      '',
    ],
  ])('%s', async (_, validate, reason) => {
    const broker = await filled(1);
    const seen: unknown[] = [];
    consume(broker, { message: (payload) => void seen.push(payload) }, { schema: withSchema(validate) });
    if (reason === '') {
      await broker.drained('orders');
      expect(seen).toEqual([0]);
    } else {
      expect(await failureOf(broker)).toMatchObject({ reason });
      expect(seen).toEqual([]);
    }
  });
});

describe('Retry', () => {
  it('later puts a message off and uses up no attempt, and after uses one up; both say so', async () => {
    const broker = await filled(2);
    const told: ConsumerEvents['handlerFailed'][] = [];
    const consumer = consume(broker, {
      message: (payload) => {
        throw payload === 0 ? Retry.later(60_000) : Retry.after(60_000);
      },
    });
    consumer.on('handlerFailed', (...event) => told.push(event));
    await vi.waitUntil(() => broker.messages('orders').every(({ nackReason }) => nackReason !== undefined));
    const [later, after] = broker.messages('orders');
    expect(later).toMatchObject({ receiveCount: 0, nackReason: expect.stringContaining('uses up no attempt') });
    expect(after).toMatchObject({ receiveCount: 1, nackReason: expect.stringContaining('uses up an attempt') });
    for (const message of [later, after]) {
      expect((message?.availableAt.getTime() ?? 0) - Date.now()).toBeGreaterThan(55_000);
    }
    expect(told.map(([, , settlement]) => settlement?.verb)).toEqual(['release', 'nack']);
  });

  it('later never dead-letters a message, however often it is put off', async () => {
    const broker = new InMemoryBroker();
    await broker.putQueue('dead');
    await broker.putQueue('orders', { maxReceives: 1, deadLetterQueue: 'dead' });
    await new Queue(broker, 'orders').enqueue(1);
    let times = 0;
    consume(broker, {
      message: () => {
        times += 1;
        if (times < 5) throw Retry.later(0);
      },
    });
    await broker.drained('orders');
    expect(times).toBe(5);
    expect(broker.messages('dead')).toEqual([]);
  });

  it('takes delays from 0 on only', () => {
    for (const make of [(ms: number) => Retry.after(ms), (ms: number) => Retry.later(ms)]) {
      for (const wrong of [-1, Number.NaN, '5', 5n]) expect(() => make(wrong as number)).toThrow(RangeError);
    }
  });
});

describe('the last attempt', () => {
  it('is known to the handler, and told with its failure', async () => {
    const broker = new InMemoryBroker();
    await broker.putQueue('dead');
    await broker.putQueue('orders', { maxReceives: 2, deadLetterQueue: 'dead' });
    await new Queue(broker, 'orders').enqueue(1);
    const told: unknown[] = [];
    const known: unknown[] = [];
    const consumer = consume(
      broker,
      {
        message: (_, message) => {
          known.push(message.isLastAttempt);
          throw new Error('no');
        },
      },
      { backoff: () => 0 },
    );
    consumer.on('handlerFailed', (_message, _error, _settlement, isLast) => told.push(isLast));
    await vi.waitUntil(() => broker.messages('dead').length === 1);
    expect(known).toEqual([false, true]);
    expect(told).toEqual([false, true]);
  });
});

describe('a handler that takes longer than handlerTimeoutSeconds', () => {
  it('is told by its signal, its message is nacked, and another handler begins', async () => {
    const broker = await filled(2);
    const reasons: unknown[] = [];
    const seen: unknown[] = [];
    const told: ConsumerEvents['handlerFailed'][] = [];
    const consumer = consume(
      broker,
      {
        message: async (payload, { signal }: Message) => {
          if (payload === 1) return void seen.push(payload);
          signal.addEventListener('abort', () => reasons.push(signal.reason));
          return new Promise(() => undefined);
        },
      },
      { handlerTimeoutSeconds: 1, leaseSeconds: 30 },
    );
    consumer.on('handlerFailed', (...event) => told.push(event));
    await vi.waitUntil(() => seen.length === 1);
    expect(reasons).toEqual([expect.any(HandlerTimeoutError)]);
    expect(told).toEqual([
      [
        expect.objectContaining({ body: '0' }),
        expect.any(HandlerTimeoutError),
        expect.objectContaining({ verb: 'nack' }),
        false,
      ],
    ]);
    expect(await failureOf(broker)).toMatchObject({ receiveCount: 1, reason: expect.stringContaining('within 1 s') });
  });

  it('has no further outcome when it ends late, and nothing more is told of it', async () => {
    const broker = await filled(1);
    const told: unknown[] = [];
    let isOver = false;
    const consumer = consume(
      broker,
      {
        message: async (_, { signal }: Message) => {
          await new Promise((resolve) => signal.addEventListener('abort', resolve));
          await sleep(20);
          isOver = true;
          throw new Error('too late');
        },
      },
      { handlerTimeoutSeconds: 1, backoff: () => 3_600_000 },
    );
    consumer.on('handlerFailed', (_, error) => told.push(error));
    await vi.waitUntil(() => isOver);
    await sleep(20);
    expect(told).toEqual([expect.any(HandlerTimeoutError)]);
    expect(consumer.inHand).toBe(0);
  });
});

describe('a listener that throws or rejects', () => {
  it('is told to listenerFailed, and neither ends the process nor keeps others from hearing', async () => {
    const broker = await filled(2);
    await withoutUncaught(async () => {
      const heard: unknown[] = [];
      const failures: unknown[] = [];
      const consumer = consume(broker, { message: throwing }, { backoff: () => 3_600_000 });
      consumer.on('handlerFailed', throwing);
      consumer.on('handlerFailed', rejecting);
      consumer.on('handlerFailed', ({ body }) => heard.push(body));
      consumer.once('handlerFailed', ({ body }) => heard.push(`once ${body}`));
      consumer.on('listenerFailed', (event, error) => {
        failures.push([event, (error as Error).message]);
        throw error;
      });
      await vi.waitUntil(() => failures.length === 4);
      expect(heard).toEqual(['0', 'once 0', '1']);
      expect(failures).toContainEqual(['handlerFailed', 'not even this works']);
      expect(failures).toContainEqual(['handlerFailed', 'later']);
      await consumer.stop();
    });
  });

  it('is a warning of the process when nobody listens to listenerFailed', async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on('warning', onWarning);
    const broker = await filled(1);
    const consumer = consume(broker, { message: () => undefined });
    consumer.on('dequeued', throwing);
    await broker.drained('orders');
    await vi.waitUntil(() => warnings.length > 0);
    process.off('warning', onWarning);
    expect(warnings[0]?.message).toMatch(
      /A listener of 'dequeued' of the consumer of queue 'orders' failed: Error: not even/,
    );
  });

  it('on the signal neither ends the process nor keeps other messages from being handled', async () => {
    const broker = await filled(2);
    await withoutUncaught(async () => {
      let isHeard = false;
      const consumer = consume(
        broker,
        {
          message: async (payload, { signal }: Message) => {
            if (payload === 1) return;
            signal.addEventListener('abort', throwing);
            signal.addEventListener('abort', rejecting);
            signal.addEventListener('abort', { handleEvent: throwing });
            // oxlint-disable-next-line unicorn/prefer-add-event-listener -- a handler may do so
            signal.onabort = throwing;
            signal.addEventListener('abort', () => (isHeard = true), { once: true });
            await new Promise(() => undefined);
          },
        },
        { handlerTimeoutSeconds: 1, backoff: () => 3_600_000 },
      );
      await vi.waitUntil(() => broker.messages('orders').length === 1);
      expect(isHeard).toBe(true);
      await consumer.stop();
    });
  });
});

describe('Reject', () => {
  it('from another realm or a subclass still dead-letters', async () => {
    class NoSuchCustomer extends Reject {}
    const broker = new InMemoryBroker();
    await broker.putQueue('dead');
    await broker.putQueue('orders', { deadLetterQueue: 'dead' });
    await new Queue(broker, 'orders').enqueue(1);
    consume(broker, { message: async () => Promise.reject(new NoSuchCustomer('who?')) });
    await broker.drained('orders');
    expect(broker.messages('dead')).toMatchObject([{ nackReason: 'who?' }]);
  });
});
