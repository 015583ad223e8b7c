import { afterEach, describe, expect, it, vi } from 'vitest';
import type { ConsumerOptions } from '../consumer/consumer-options.js';
import type { Handler } from '../consumer/handling.js';
import { Reject, Retry } from '../consumer/outcomes.js';
import { QueueConsumer } from '../consumer/queue-consumer.js';
import { Queue } from '../queue/queue.js';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import { logConsumer } from './consumer-log.js';

const consumers: QueueConsumer[] = [];
afterEach(async () => {
  await Promise.all(consumers.splice(0).map((consumer) => consumer.stop()));
});

/** Has messages handled, and returns the lines of the log once there are so many. */
async function linesOf(handler: Handler<unknown>, count: number, options: ConsumerOptions = {}, messages = 1) {
  const broker = new InMemoryBroker();
  await broker.putQueue('dead');
  await broker.putQueue('orders', { maxReceives: 2, deadLetterQueue: 'dead' });
  await new Queue(broker, 'orders').enqueueMany(Array.from({ length: messages }, (_, index) => index));
  const settings = { waitSeconds: 1, shutdownSeconds: 0, ...options };
  const consumer = new QueueConsumer(broker, 'orders', handler, settings);
  consumers.push(consumer);
  const lines: string[] = [];
  const keep = (level: string) => (line: unknown) => void lines.push(`${level}: ${String(line)}`);
  logConsumer(consumer, { log: keep('log'), warn: keep('warn'), error: keep('error') });
  consumer.start();
  await vi.waitUntil(() => lines.length >= count);
  await consumer.stop();
  return lines;
}

class Silent extends Error {
  override get stack(): string {
    throw new Error('no stack');
  }
}

const withCode = () => Object.assign(new Error('no route'), { code: 'E_MAIL' });

const UUID = '[0-9a-f-]{36}';

describe('the log of a failed message', () => {
  it('names message, queue and attempt, has stack and cause, and says that the last attempt was the last', async () => {
    const handler = {
      message: function mailer() {
        throw new Error('no mail', { cause: new Error('the disk is full') });
      },
    };
    const [first, last, ...more] = await linesOf(handler, 2, { backoff: () => 0 });
    expect(more).toEqual([]);
    expect(first).toMatch(
      new RegExp(`^warn: Message ${UUID} of queue 'orders', attempt 1 failed; it comes again in 0 s: Error: no mail\n`),
    );
    expect(last).toMatch(
      new RegExp(
        `^error: Message ${UUID} of queue 'orders', attempt 2 failed; that was its last attempt, and it is dead-lettered: Error: no mail\n`,
      ),
    );
    for (const line of [first, last]) {
      expect(line).toMatch(/\n {4}at .*mailer.*consumer-log\.test/);
      expect(line).toMatch(/\[cause\]: Error: the disk is full\n/);
    }
  });

  it('has the stack of an error that a batch shares once', async () => {
    const handler = { batch: () => Promise.reject(new Error('no index')) };
    const lines = await linesOf(handler, 3, { batchSize: 3, prefetch: 0, backoff: () => 3_600_000 }, 3);
    expect(lines.filter((line) => line.includes('\n'))).toHaveLength(1);
    expect(lines.slice(1).every((line) => /the same error as that of message [0-9a-f-]{36}$/.test(line))).toBe(true);
  });

  it('says that Retry.later uses up no attempt, and has no stack for Retry and Reject', async () => {
    const thrown = [Retry.later(3_600_000, 'not now'), Retry.after(3_600_000, 'again'), new Reject('never')];
    const handler = {
      message: (payload: unknown) => {
        throw thrown[payload as number];
      },
    };
    const lines = await linesOf(handler, 3, {}, 3);
    const texts = lines.map((line) => line.replace(new RegExp(UUID), '…'));
    expect(texts).toEqual([
      "log: Message … of queue 'orders', attempt 1: it was put off for 3600 s, which uses up no attempt: not now",
      "warn: Message … of queue 'orders', attempt 1 failed; it comes again in 3600 s: again",
      "warn: Message … of queue 'orders', attempt 1 failed; it is dead-lettered: never",
    ]);
  });

  it('names the message of a handler that takes too long, once', async () => {
    const handler = { message: async () => new Promise(() => undefined) };
    const lines = await linesOf(handler, 1, { handlerTimeoutSeconds: 1, backoff: () => 3_600_000 });
    expect(lines).toEqual([
      expect.stringMatching(
        new RegExp(`^warn: Message ${UUID} of queue 'orders', attempt 1 failed; .*HandlerTimeoutError: .* within 1 s`),
      ),
    ]);
  });

  it.each([
    ['an error', (request: object) => Object.assign(new Error('status 401', { cause: withCode() }), request)],
    ['the cause of an error', (request: object) => new Error('no mail', { cause: Object.assign(withCode(), request) })],
    ['an object', (request: object) => ({ ...request, code: 'E_MAIL' })],
    ['an error whose stack throws', (request: object) => Object.assign(new Silent(), request, { code: 'E_MAIL' })],
  ])('has no request of an HTTP client that is in the fields of %s, but its code', async (what, make) => {
    const SECRET = 'Bearer not-for-logs';
    const request = { config: { headers: { Authorization: SECRET }, list: [SECRET] }, request: { _header: SECRET } };
    const handler = {
      message: () => {
        // oxlint-disable-next-line typescript/only-throw-error -- handlers throw anything
        throw make(request);
      },
    };
    const [line] = await linesOf(handler, 1, { backoff: () => 3_600_000 });
    expect(line).not.toContain('not-for-logs');
    if (!what.endsWith('throws')) expect(line).toContain('E_MAIL');
  });

  it('shows a long message, and the end of the chain of causes', async () => {
    const endless = new Error('first');
    endless.cause = endless;
    const chain = new Error('x'.repeat(100_000), { cause: new Error('the disk is full', { cause: endless }) });
    const handler = { message: () => Promise.reject(chain) };
    const [line] = await linesOf(handler, 1, { backoff: () => 3_600_000 });
    expect(line).toContain('[cause]: Error: the disk is full');
    expect(line?.length).toBeLessThan(11_000);
  });

  it('names undefined, if that was thrown', async () => {
    // oxlint-disable-next-line typescript/prefer-promise-reject-errors -- handlers throw anything
    const handler = { message: () => Promise.reject(undefined) };
    const [line] = await linesOf(handler, 1, { backoff: () => 3_600_000 });
    expect(line).toMatch(/in 3600 s: undefined$/);
  });

  it('is bounded, whatever was thrown', async () => {
    const handler = {
      message: () => {
        throw Object.assign(new Error('x'.repeat(1_000_000)), { list: Array.from({ length: 100_000 }, () => 'y') });
      },
    };
    const [line] = await linesOf(handler, 1, { backoff: () => 3_600_000 });
    expect(line?.length).toBeLessThan(11_000);
  });
});
