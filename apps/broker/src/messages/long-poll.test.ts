import { RowmqError } from '@rowmq/contract';
import type { LeasedDelivery, MessageRepository, Queue, QueueRepository } from '@rowmq/store';
import { describe, expect, test } from 'vitest';
import { LongPoll } from './long-poll.js';

const LONG = 60_000;
const never = new AbortController().signal;
const one = { maxMessages: 1, leaseSeconds: undefined };

const delivery = (body: string): LeasedDelivery => ({
  messageId: Buffer.alloc(16),
  leaseToken: Buffer.alloc(8),
  body: Buffer.from(body),
  headers: null,
  priority: 4,
  receiveCount: 1,
  expiresAt: 0,
  leaseExpiresAt: 0,
});
const bodies = (deliveries: LeasedDelivery[]): string[] => deliveries.map(({ body }) => body.toString());

/** A store whose claims are answered by the test, one by one and when it likes: what a database cannot be told to do. */
class ClaimsByHand {
  paused = false;
  private readonly pending: ((outcome: LeasedDelivery[] | Error) => void)[] = [];
  private readonly awaited: (() => void)[] = [];

  readonly messages = {
    dequeue: async () =>
      new Promise<LeasedDelivery[]>((resolve, reject) => {
        this.pending.push((outcome) => (outcome instanceof Error ? reject(outcome) : resolve(outcome)));
        this.awaited.shift()?.();
      }),
  } as unknown as MessageRepository;
  readonly queues = {
    get: async () => ({ name: 'q', leaseSeconds: 30, paused: this.paused }) as Queue,
  } as unknown as QueueRepository;

  /** Waits for the next claim and answers it. */
  async answer(outcome: LeasedDelivery[] | Error): Promise<void> {
    if (this.pending.length === 0) await new Promise<void>((resolve) => this.awaited.push(resolve));
    this.pending.shift()?.(outcome);
  }

  /** Waits until a claim is under way. */
  async underWay(): Promise<void> {
    if (this.pending.length === 0) await new Promise<void>((resolve) => this.awaited.push(resolve));
  }
}

function newLongPoll(maxLongPolls = 10): { claims: ClaimsByHand; longPoll: LongPoll } {
  const claims = new ClaimsByHand();
  return { claims, longPoll: new LongPoll(claims.messages, claims.queues, { maxLongPolls }) };
}

describe('a wait', () => {
  test('looks again until there is something', async () => {
    const { claims, longPoll } = newLongPoll();
    const waiting = longPoll.wait('q', one, LONG, never);
    for (let look = 0; look < 4; look += 1) await claims.answer([]);
    await claims.answer([delivery('at last')]);
    expect(bodies(await waiting)).toEqual(['at last']);
    expect(longPoll.size).toBe(0);
    expect(longPoll.hasWaiters('q')).toBe(false);
  });

  test('looks again at once when it is woken while it looks, as that look may have been too early', async () => {
    const { claims, longPoll } = newLongPoll();
    const waiting = longPoll.wait('q', one, LONG, never);
    for (let look = 0; look < 8; look += 1) await claims.answer([]);
    await claims.underWay();
    longPoll.wake('q');
    const from = performance.now();
    await claims.answer([]);
    await claims.underWay();
    expect(performance.now() - from).toBeLessThan(200);
    await claims.answer([delivery('seen')]);
    expect(bodies(await waiting)).toEqual(['seen']);
  });

  test('ends with nothing when its time is up', async () => {
    const { claims, longPoll } = newLongPoll();
    // Shorter than the pause before the second look.
    const waiting = longPoll.wait('q', one, 10, never);
    await claims.answer([]);
    expect(await waiting).toEqual([]);
    expect(longPoll.size).toBe(0);
  });

  test('whose time is up while a claim is under way still gets what that brings', async () => {
    const { claims, longPoll } = newLongPoll();
    let ended = false;
    const waiting = longPoll.wait('q', one, 10, never).finally(() => (ended = true));
    await claims.underWay();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(ended).toBe(false);
    await claims.answer([delivery('just in time')]);
    expect(bodies(await waiting)).toEqual(['just in time']);
  });

  test('whose consumer hangs up while a claim is under way hands the claim on to be given back', async () => {
    const { claims, longPoll } = newLongPoll();
    const consumer = new AbortController();
    const waiting = longPoll.wait('q', one, LONG, consumer.signal);
    await claims.underWay();
    consumer.abort();
    await claims.answer([delivery('claimed for nobody')]);
    expect(bodies(await waiting)).toEqual(['claimed for nobody']);
  });

  test('whose consumer hangs up between claims ends without another', async () => {
    const { claims, longPoll } = newLongPoll();
    const consumer = new AbortController();
    const waiting = longPoll.wait('q', one, LONG, consumer.signal);
    await claims.answer([]);
    await new Promise((resolve) => setImmediate(resolve));
    consumer.abort();
    expect(await waiting).toEqual([]);
    expect(longPoll.hasWaiters('q')).toBe(false);
  });

  test('does not begin for a consumer who has hung up already', async () => {
    const { longPoll } = newLongPoll();
    expect(await longPoll.wait('q', one, LONG, AbortSignal.abort())).toEqual([]);
    expect(longPoll.hasWaiters('q')).toBe(false);
  });

  test('passes on what the claim throws, to the one it was for, and goes on for the next', async () => {
    const { claims, longPoll } = newLongPoll();
    const first = longPoll.wait('q', one, LONG, never);
    const second = longPoll.wait('q', one, LONG, never);
    await claims.answer(new RowmqError('database-unavailable', 'gone'));
    await expect(first).rejects.toThrow('gone');
    await claims.answer([delivery('for the second')]);
    expect(bodies(await second)).toEqual(['for the second']);
  });

  test('makes no claim while the queue is paused', async () => {
    const { claims, longPoll } = newLongPoll();
    claims.paused = true;
    expect(await longPoll.wait('q', one, 80, never)).toEqual([]);
    claims.paused = false;
    const waiting = longPoll.wait('q', one, LONG, never);
    await claims.answer([delivery('resumed')]);
    expect(bodies(await waiting)).toEqual(['resumed']);
  });
});

describe('those who wait', () => {
  test('are served in the order in which they came', async () => {
    const { claims, longPoll } = newLongPoll();
    const waits = ['a', 'b', 'c'].map(async (name) => [name, ...bodies(await longPoll.wait('q', one, LONG, never))]);
    for (const body of ['1', '2', '3']) await claims.answer([delivery(body)]);
    expect(await Promise.all(waits)).toEqual([
      ['a', '1'],
      ['b', '2'],
      ['c', '3'],
    ]);
  });

  test('are as many as the setting says, and one more is refused', async () => {
    const { claims, longPoll } = newLongPoll(2);
    const waits = [longPoll.wait('q', one, LONG, never), longPoll.wait('q', one, LONG, never)];
    await expect(longPoll.wait('other', one, LONG, never)).rejects.toMatchObject({
      code: 'overloaded',
      retryAfterSeconds: 1,
    });
    for (const body of ['1', '2']) await claims.answer([delivery(body)]);
    await Promise.all(waits);
    const later = longPoll.wait('q', one, LONG, never);
    await claims.answer([delivery('3')]);
    expect(bodies(await later)).toEqual(['3']);
  });

  test('are let go by a stop, but for the one whose claim is under way, who gets it; nobody waits afterwards', async () => {
    const { claims, longPoll } = newLongPoll();
    const served = longPoll.wait('q', one, LONG, never);
    const idle = longPoll.wait('q', one, LONG, never);
    await claims.underWay();
    longPoll.beforeApplicationShutdown();
    expect(await idle).toEqual([]);
    await claims.answer([delivery('the last')]);
    expect(bodies(await served)).toEqual(['the last']);
    expect(await longPoll.wait('q', one, LONG, never)).toEqual([]);
  });
});
