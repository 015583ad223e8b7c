import { DataSource } from 'typeorm';
import { RowmqError } from '@rowmq/contract';
import {
  DeduplicationRepository,
  type EnqueuedMessage,
  type EnqueueRequest,
  MessageRepository,
  type NewMessage,
  type Queue,
} from '@rowmq/store';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { enqueue as enqueueIn } from '../../libs/typeorm/src/index.js';
import { claimFrom } from '../support/claim-from.js';
import { storedBodies } from '../support/deliveries.js';
import { PEEK_AT_FRONT, recordRoundTrips, recordStatements, stopClock } from '../support/statements.js';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/*
 * deduplicationIds and Idempotency-Keys: what was enqueued once is not stored a second time within
 * the queue's time, however its repeat meets it.
 */

const T0 = 1_800_000_000_000;

let store: TestStore;
let other: TestStore;
let shop: DataSource;
let queue: Queue;

beforeAll(async () => {
  store = await openStore();
  other = await openStore({ on: store.url });
  shop = await new DataSource({ type: 'mysql', url: store.url }).initialize();
});
afterAll(async () => {
  await shop.destroy();
  await other.close();
  await store.close();
});
beforeEach(async () => {
  store.at(undefined);
  queue = await createQueue(store);
});

/** A message with this deduplicationId, or without one, and its number as its body. */
function once(id: string | undefined, body = id ?? 'plain'): NewMessage {
  return message({ body: Buffer.from(body), deduplicationId: id });
}

function request(messages: NewMessage[], idempotencyKey?: string): EnqueueRequest {
  return { queueName: queue.name, messages, idempotencyKey };
}

/** Each request's answer: ids as text, `+` before a duplicate's, or the code of the refusal. */
async function answers(requests: EnqueueRequest[], on = store): Promise<(string[] | string)[]> {
  const outcomes = await on.messages.batches.enqueue(requests);
  return outcomes.map((outcome) => {
    if (outcome instanceof RowmqError) return outcome.code;
    return (outcome as EnqueuedMessage[]).map(({ id, duplicate }) => `${duplicate ? '+' : ''}${id.toString('hex')}`);
  });
}

/** The only request's answer. */
async function answer(messages: NewMessage[], key?: string, on = store): Promise<string[] | string> {
  return (await answers([request(messages, key)], on))[0] as string[] | string;
}

const owed = async () => (await storedBodies(store, queue)).owed.map(String).toSorted();

/** A service's transaction that enqueues and then stays open until it is ended. */
async function openTransaction(
  messages: { body: string; deduplicationId?: string }[],
  idempotencyKey?: string,
): Promise<{ ids: string[]; end: (how: 'commit' | 'rollback') => Promise<void> }> {
  const runner = shop.createQueryRunner();
  await runner.startTransaction();
  const ids = await enqueueIn(runner.manager, queue.name, messages, { idempotencyKey });
  return {
    ids: ids.map((id) => id.replaceAll('-', '')),
    end: async (how) => {
      await (how === 'commit' ? runner.commitTransaction() : runner.rollbackTransaction());
      await runner.release();
    },
  };
}

describe('a message with a deduplicationId', () => {
  it('is stored once, whether its repeat comes in the same request, the same batch or later', async () => {
    const [[first, again, free] = [], [late] = []] = await answers([
      request([once('a', '1'), once('a', '2'), once(undefined, '3')]),
      request([once('a', '4')]),
    ]);
    expect(again).toBe(`+${first}`);
    expect(late).toBe(`+${first}`);
    expect(await answer([once('b', '5'), once('a', '6')], undefined, other)).toEqual([expect.any(String), `+${first}`]);
    expect(free).not.toBe(first);
    expect(await owed()).toEqual(['1', '3', '5']);
  });

  it('may be as long and as unusual as the contract allows, and differs by every character', async () => {
    const ids = ['a', 'A', 'a ', ' a', 'ä', 'a\u0000', '漢'.repeat(128), `${'漢'.repeat(127)}a`];
    const stored = await answer(ids.map((id) => once(id)));
    expect(new Set(stored).size).toBe(ids.length);
    expect(await answer(ids.map((id) => once(id)))).toEqual((stored as string[]).map((id) => `+${id}`));
  });

  it('is remembered for the queue’s deduplicationSeconds, not longer, and in no other queue', async () => {
    const short = await createQueue(store, { deduplicationSeconds: 10 });
    const at = async (now: number, name = short.name) => {
      const [outcome] = await store
        .at(now)
        .messages.batches.enqueue([{ queueName: name, messages: [once('a', String(now))] }]);
      return (outcome as EnqueuedMessage[])[0];
    };
    const first = await at(T0);
    expect(await at(T0, queue.name)).toMatchObject({ duplicate: false });
    expect(await at(T0 + 9_999)).toEqual({ id: first?.id, duplicate: true });
    const second = await at(T0 + 10_000);
    expect(second).toMatchObject({ duplicate: false });
    // The time counts from the message that was stored last.
    expect(await at(T0 + 19_999)).toEqual({ id: second?.id, duplicate: true });
  });

  it('does not hold up what is stored with it: the rest of its request and of its batch', async () => {
    const [first] = await answer([once('a')]);
    const outcomes = await answers([
      request([once('a'), once('new')]),
      { ...request([once('x')]), queueName: 'no-such-queue' },
      request([once('b'), { ...once('c'), delaySeconds: 10, expiresInSeconds: 5 }]),
      request([once('d')]),
    ]);
    expect(outcomes).toEqual([
      [`+${first}`, expect.any(String)],
      'queue-not-found',
      'invalid-request',
      [expect.any(String)],
    ]);
    // The refused request has not used its id.
    expect(await answer([once('b')])).toEqual([expect.not.stringMatching(/^\+/)]);
    expect(await owed()).toEqual(['a', 'b', 'd', 'new']);
  });

  it('costs no round trip unless it is a duplicate', async () => {
    stopClock();
    const trips = recordRoundTrips(store.database);
    await answer([once('a'), once('b')], 'key');
    expect(trips.filter((sql) => sql.endsWith('COMMIT'))).toHaveLength(1);
    expect(trips).toHaveLength(1);
    trips.length = 0;
    await answer([once('a'), once('c')]);
    // The batch is refused, rolls back, reads its records, and is stored.
    expect(trips).toHaveLength(4);
  });
});

describe('while the first enqueue is in an open transaction', () => {
  it('a second one waits, and is a duplicate if the first commits, however late', async () => {
    const { ids, end } = await openTransaction([{ body: 'first', deduplicationId: 'a' }]);
    let isAnswered = false;
    const second = answer([once('a', 'second'), once('b')]).finally(() => (isAnswered = true));
    await blocked();
    expect(isAnswered).toBe(false);
    await end('commit');
    expect(await second).toEqual([`+${ids[0]}`, expect.any(String)]);
    expect(await owed()).toEqual(['b', 'first']);
  });

  it('a second one is stored if the first rolls back', async () => {
    const { end } = await openTransaction([{ body: 'first', deduplicationId: 'a' }]);
    const second = answer([once('a', 'second')]);
    await blocked();
    await end('rollback');
    expect(await second).toEqual([expect.not.stringMatching(/^\+/)]);
    expect(await owed()).toEqual(['second']);
  });

  it('requests that need its id are refused after two seconds, and the rest of their batch is stored', async () => {
    const { end } = await openTransaction([{ body: 'first', deduplicationId: 'a' }], 'key');
    const outcomes = await answers([
      request([once('b'), once('a', 'second')]),
      request([once('c')]),
      request([once('d')], 'key'),
      request([once('e')], 'another-key'),
    ]);
    expect(outcomes).toEqual([
      'enqueue-in-progress',
      [expect.any(String)],
      'enqueue-in-progress',
      [expect.any(String)],
    ]);
    await end('commit');
    expect(await owed()).toEqual(['c', 'e', 'first']);
  });

  it('another service’s transaction is refused after two seconds, too, and keeps its own limit', async () => {
    const { end } = await openTransaction([{ body: 'first', deduplicationId: 'a' }]);
    await shop.transaction(async (manager) => {
      await manager.query('SET SESSION innodb_lock_wait_timeout = 40');
      const second = enqueueIn(manager, queue.name, [{ body: 'second', deduplicationId: 'a' }]);
      await expect(second).rejects.toMatchObject({ code: 'enqueue-in-progress' });
      expect(await manager.query('SELECT @@SESSION.innodb_lock_wait_timeout AS wait')).toEqual([
        { wait: expect.toSatisfy((wait) => Number(wait) === 40) as unknown },
      ]);
    });
    await end('commit');
  });
});

describe('a request with an Idempotency-Key', () => {
  it('gets the answer of the first, whether it comes in the same batch or later, and stores nothing', async () => {
    await answer([once('known')]);
    const messages = [once(undefined, '1'), once('known'), once(undefined, '2')];
    const [first, twin] = await answers([request(messages, 'key'), request(messages, 'key')]);
    expect(first).toEqual([expect.any(String), expect.stringMatching(/^\+/), expect.any(String)]);
    expect(twin).toEqual(first);
    expect(await answer(messages, 'key', other)).toEqual(first);
    expect(await answer(messages, 'other-key')).not.toEqual(first);
    expect(await owed()).toEqual(['1', '1', '2', '2', 'known']);
  });

  it('gets it even if all its messages are duplicates that the queue has forgotten since', async () => {
    const short = await createQueue(store, { deduplicationSeconds: 1 });
    const send = async (now: number, key?: string) => {
      store.at(now);
      return (await answers([{ queueName: short.name, messages: [once('a')], idempotencyKey: key }]))[0];
    };
    const [id] = (await send(T0)) as string[];
    expect(await send(T0, 'key')).toEqual([`+${id}`]);
    // A key is remembered for 300 s at least.
    expect(await send(T0 + 299_999, 'key')).toEqual([`+${id}`]);
    expect(await send(T0 + 300_000, 'key')).not.toEqual([`+${id}`]);
  });

  it('is refused if its messages are not those of the first', async () => {
    const first = await answer([once(undefined, '1')], 'key');
    const differing = [
      [once(undefined, '2')],
      [once(undefined, '1'), once(undefined, '1')],
      [{ ...once(undefined, '1'), priority: 5 }],
      [{ ...once(undefined, '1'), headers: Buffer.from('{"a":"b"}') }],
      [{ ...once(undefined, '1'), delaySeconds: 0 }],
      [once('id', '1')],
    ];
    for (const messages of differing) expect(await answer(messages, 'key')).toBe('idempotency-key-reused');
    expect(await answers(differing.slice(0, 2).map((messages) => request(messages, 'fresh')))).toEqual([
      [expect.any(String)],
      'idempotency-key-reused',
    ]);
    expect(await answer([once(undefined, '1')], 'key')).toEqual(first);
    expect(await owed()).toEqual(['1', '2']);
  });

  it('gets the first answer from a full queue, too, and from one whose settings would refuse it now', async () => {
    await store.queues.put(queue.name, { maxDepth: 1 });
    const messages = [{ ...once('a'), delaySeconds: 50 }];
    const first = await answer(messages, 'key');
    await store.queues.put(queue.name, { messageTtlSeconds: 40 });
    expect(await answer(messages, 'key')).toEqual(first);
    expect(await answer(messages)).toEqual([`+${first[0]}`]);
    expect(await answer([once('b')])).toBe('queue-full');
  });
});

describe('an enqueue in a service’s transaction', () => {
  it('takes ids and a key, and repeats within it or later get the first answer', async () => {
    const messages = [{ body: '1', deduplicationId: 'a' }, { body: '2' }, { body: '3', deduplicationId: 'a' }];
    const runner = shop.createQueryRunner();
    await runner.startTransaction();
    const first = await enqueueIn(runner.manager, queue.name, messages, { idempotencyKey: 'key' });
    expect(first[2]).toBe(first[0]);
    expect(await enqueueIn(runner.manager, queue.name, messages, { idempotencyKey: 'key' })).toEqual(first);
    expect(await enqueueIn(runner.manager, queue.name, messages.slice(0, 1))).toEqual(first.slice(0, 1));
    await runner.commitTransaction();
    await runner.release();
    const sent = [once('a', '1'), once(undefined, '2'), once('a', '3')];
    const ids = first.map((id) => id.replaceAll('-', ''));
    expect(await answer(sent, 'key')).toEqual([ids[0], ids[1], `+${ids[0]}`]);
    await expect(
      shop.transaction((manager) => enqueueIn(manager, queue.name, [{ body: '2' }], { idempotencyKey: 'key' })),
    ).rejects.toMatchObject({ code: 'idempotency-key-reused' });
    expect(await owed()).toEqual(['1', '2']);
  });

  it('whose key was used before leaves its ids free', async () => {
    await store.queues.put(queue.name, { deduplicationSeconds: 1 });
    const messages = [{ body: '1', deduplicationId: 'a' }];
    const send = async () =>
      shop.transaction((manager) => enqueueIn(manager, queue.name, messages, { idempotencyKey: 'key' }));
    const first = await send();
    // As if the queue had forgotten the id, but not yet the key.
    await store.database.write('DELETE FROM deduplication WHERE scope_id = ? AND kind = 2', [queue.id]);
    expect(await send()).toEqual(first);
    expect(await answer([once('a', '2')])).toEqual([expect.not.stringMatching(/^\+/)]);
    expect(await owed()).toEqual(['1', '2']);
  });
});

describe('expired records', () => {
  it('are removed in batches, and live ones stay', async () => {
    const records = new DeduplicationRepository(store.database);
    store.at(T0);
    await store.database.write('DELETE FROM deduplication');
    await answer([once('a'), once('b'), once('c')]);
    store.at(T0 + 100_000);
    await answer([once('d')], 'key');
    store.at(T0 + 299_999);
    expect(await records.removeExpired(100)).toBe(0);
    store.at(T0 + 300_000);
    expect(await records.removeExpired(2)).toBe(2);
    expect(await records.removeExpired(2)).toBe(1);
    expect(await records.removeExpired(2)).toBe(0);
    expect(await answer([once('d')])).toEqual([expect.stringMatching(/^\+/)]);
  });
});

it('brokers that store the same at the same time store it once, and give the same answer', async () => {
  const brokers = [store, other].map(({ database }) => new MessageRepository(database));
  const seen = new Map<string, Set<string>>();
  const note = (name: string, id: Buffer) => {
    const ids = seen.get(name) ?? new Set<string>();
    seen.set(name, ids.add(id.toString('hex')));
  };
  // Each round uses ids and keys that are new, and sends them in different orders from each broker.
  for (let round = 0; round < 30; round += 1) {
    const names = ['a', 'b', 'c', 'd', 'e'].map((name) => `${name}${round}`);
    await Promise.all(
      Array.from({ length: 6 }, async (_, turn) => {
        const mine = names.toSorted(() => Math.random() - 0.5).slice(0, 1 + (turn % names.length));
        const key = turn % 3 === 0 ? `key ${round}` : undefined;
        const messages = key === undefined ? mine.map((name) => once(name)) : [once(undefined, key)];
        const [outcome] = await (brokers[turn % 2] as MessageRepository).enqueue([request(messages, key)]);
        if (outcome === undefined || outcome instanceof Error) throw outcome ?? new Error('no outcome');
        for (const [index, { id }] of outcome.entries()) note(messages[index]?.body.toString() ?? '', id);
      }),
    );
  }
  expect([...seen.values()].filter(({ size }) => size !== 1)).toEqual([]);
  expect(await owed()).toEqual([...seen.keys()].toSorted());
});

/**
 * Waits until a statement waits for a record. It does if several looks in a row meet it: it is one
 * of microseconds otherwise.
 */
async function blocked(): Promise<void> {
  let met = 0;
  await eventually('a statement waits for a record', async () => {
    const rows = await other.database.read(
      "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND INFO LIKE '% deduplication %' AND INFO NOT LIKE '%PROCESSLIST%'",
    );
    met = rows.length > 0 ? met + 1 : 0;
    return met === 5;
  });
}

it('a repeat leaves the next claim where the last one ended, and not at the left edge of the index', async () => {
  for (const repeated of [request([once(undefined)], 'a key'), request([once('an id')])]) {
    await answers([repeated]);
    const leased = await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 60 });
    expect(await store.messages.ack(queue.id, leased)).toEqual(leased.map(() => null));
    const peeks = async (): Promise<string[]> => {
      const statements = recordStatements(store.database);
      await claimFrom(store.messages.batches, queue, [{ maxMessages: 1, leaseSeconds: 60 }]);
      return statements.filter((sql) => PEEK_AT_FRONT.test(sql));
    };
    await answers([repeated]);
    const [peek] = await peeks();
    expect(peek).not.toContain('BETWEEN 0 AND');
  }
});
