import { afterAll, beforeAll, vi } from 'vitest';
import type { BrokerClient } from '../broker-client.js';
import type { PayloadOptions } from '@rowmq/contract/producer';
import type { ConsumerOptions } from './consumer-options.js';
import type { Handler } from './handling.js';
import { QueueConsumer } from './queue-consumer.js';

/**
 * A clock for the tests of a file. It goes on by 20 ms in each turn that Node gives a real timer of
 * 20 ms. While a busy machine stops the process it stands still, and no lease ends.
 */
export function useUnstalledClock(): void {
  beforeAll(() => {
    vi.useFakeTimers({
      shouldAdvanceTime: true,
      toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date', 'performance'],
    });
  });
  afterAll(() => void vi.useRealTimers());
}

/** Resolves after so much time of that clock. `node:timers/promises` takes the real time. */
export async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

/** Starts consumers of the queue `orders` for tests, and stops them together. */
export class StartedConsumers {
  readonly #started: QueueConsumer[] = [];

  readonly consume = <T = number>(
    broker: BrokerClient,
    handler: Handler<T>,
    options: ConsumerOptions & PayloadOptions<unknown, T> = {},
  ): QueueConsumer<T> => {
    const consumer = new QueueConsumer<T>(broker, 'orders', handler, {
      waitSeconds: 1,
      shutdownSeconds: 0,
      ...options,
    });
    this.#started.push(consumer as QueueConsumer);
    consumer.start();
    return consumer;
  };

  /** Each waits for its last dequeue, for up to a second. */
  readonly stop = async (): Promise<void> => {
    await Promise.all(this.#started.splice(0).map((consumer) => consumer.stop()));
  };
}
