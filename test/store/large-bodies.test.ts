import { randomBytes } from 'node:crypto';
import { LIMITS, PACK_MESSAGES } from '@rowmq/contract';
import type { Demand, Queue } from '@rowmq/store';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';
import { claimFrom } from '../support/claim-from.js';

const LARGEST = LIMITS.bodyBytesMost;
const HEADERS = Buffer.from(JSON.stringify({ h: 'x'.repeat(LIMITS.headersBytes - 8) }));

let store: TestStore;
beforeAll(async () => {
  store = await openStore();
});
afterAll(async () => {
  await store.close();
});

const demand = (maxMessages: number): Demand => ({ maxMessages, leaseSeconds: 60 });

/** Stores messages of these sizes, in this order, and returns their bodies. */
async function fill(queue: Queue, ...sizes: number[]): Promise<Buffer[]> {
  const bodies = sizes.map((size) => randomBytes(size));
  for (const body of bodies) await store.messages.enqueue(queue.name, [message({ body, headers: HEADERS })]);
  return bodies;
}

test('a body of any size comes back as it was, also through nack and the next claim', async () => {
  const queue = await createQueue(store);
  const sizes = [0, 1, 4096, 7900, 8000, 8192, 65_536, 139_990, 140_000, LARGEST];
  const sent = await fill(queue, ...sizes);
  for (let round = 1; round <= 2; round += 1) {
    const leased = await store.messages.dequeue(queue, demand(100));
    expect(leased.map(({ body }) => body.length)).toEqual(sizes);
    for (const [index, { body }] of leased.entries()) expect(body.equals(sent[index] as Buffer)).toBe(true);
    expect(leased.every(({ headers, receiveCount }) => headers?.equals(HEADERS) && receiveCount === round)).toBe(true);
    await store.messages.nack(queue.id, leased, { delaySeconds: 0 });
  }
});

test('full packs of small messages stay in their rows, and those of large ones fill their pages', async () => {
  const own = await openStore();
  try {
    const bytes = async (): Promise<number> => {
      await own.database.read('ANALYZE TABLE pack');
      const [row] = await own.database.read<{ bytes: string }>(
        "SELECT DATA_LENGTH AS bytes FROM information_schema.tables WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'pack'",
      );
      return Number(row?.bytes);
    };
    const queue = await createQueue(own);
    const empty = await bytes();
    const enqueue = async (count: number, size: number): Promise<void> => {
      const body = Buffer.alloc(size, 'x');
      await own.messages.enqueue(
        queue.name,
        Array.from({ length: count }, () => message({ body })),
      );
    };
    await enqueue(400 * PACK_MESSAGES, 240);
    const small = await bytes();
    // Two rows share a page of 16 KiB. With overflow pages, each would need one of its own.
    expect(small - empty).toBeLessThan(400 * 12 * 1024);
    await enqueue(50 * PACK_MESSAGES, 4096);
    // Nine pages a pack, and a margin for extents that are not full.
    expect((await bytes()) - small).toBeLessThan(50 * 11 * 16_384);
  } finally {
    await own.close();
  }
});

test('one answer ends before 4 MiB, and the next continues in order, with nothing lost or doubled', async () => {
  const queue = await createQueue(store);
  const sent = await fill(queue, ...Array.from({ length: 40 }, () => LARGEST));
  const got: Buffer[] = [];
  for (const wanted of [100, 100, 100]) {
    const leased = await store.messages.dequeue(queue, demand(wanted));
    const bytes = leased.reduce((sum, { body, headers }) => sum + body.length + (headers?.length ?? 0), 0);
    expect(bytes).toBeLessThanOrEqual(LIMITS.answerBytes);
    expect(leased.length).toBeGreaterThanOrEqual(Math.min(15, 40 - got.length));
    got.push(...leased.map(({ body }) => body));
  }
  expect(got).toHaveLength(40);
  expect(got.every((body, index) => body.equals(sent[index] as Buffer))).toBe(true);
});

test('a claim for many consumers ends at 8 MiB, says that more is ready, and serves the first ones', async () => {
  const queue = await createQueue(store);
  await fill(queue, ...Array.from({ length: 40 }, () => LARGEST));
  const demands = Array.from({ length: 40 }, () => demand(1));
  const first = await claimFrom(store.messages.batches, queue, demands);
  const served = first.leased.filter(({ length }) => length === 1).length;
  expect(served).toBeGreaterThanOrEqual(31);
  expect(served).toBeLessThanOrEqual(32);
  expect(first.leased.slice(served).flat()).toEqual([]);
  expect(await first.claimAgain).toBe(true);
  const second = await claimFrom(store.messages.batches, queue, demands.slice(served));
  expect(second.leased.map(({ length }) => length)).toEqual(demands.slice(served).map(() => 1));
});

test('after large messages a claim leases as many small ones as before', async () => {
  const queue = await createQueue(store);
  await fill(queue, ...Array.from({ length: 20 }, () => LARGEST));
  await fill(queue, ...Array.from({ length: 90 }, () => 10));
  expect(await store.messages.dequeue(queue, demand(100))).toHaveLength(15);
  const rest = [await store.messages.dequeue(queue, demand(100)), await store.messages.dequeue(queue, demand(100))];
  expect(rest.flat()).toHaveLength(95);
  await fill(queue, ...Array.from({ length: 100 }, () => 10));
  expect(await store.messages.dequeue(queue, demand(100))).toHaveLength(100);
});

test('a page of a browse ends before 4 MiB, and the pages together show every message once', async () => {
  const queue = await createQueue(store);
  await fill(queue, ...Array.from({ length: 20 }, () => LARGEST), ...Array.from({ length: 10 }, () => 10));
  const seen: string[] = [];
  const pages: number[] = [];
  for (let after: string | undefined | null; after !== null;) {
    const page = await store.browse.browse(queue.id, 'ready', 100, after);
    const messages = await store.browse.messages(page.deliveries.map(({ messageId }) => messageId));
    expect(messages.reduce((sum, { body }) => sum + body.length, 0)).toBeLessThanOrEqual(LIMITS.answerBytes);
    seen.push(...page.deliveries.map(({ messageId }) => messageId.toString('hex')));
    pages.push(page.deliveries.length);
    after = page.nextAfter;
  }
  expect([new Set(seen).size, pages]).toEqual([30, [15, 15]]);
});
