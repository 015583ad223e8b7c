import { FIRST_ID, type LeasedMessage, MessageRepository, type Queue, UnleasedRepository } from '@rowmq/store';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { counted, held, LEASE_END, LEASE_SECONDS, named, names, SECOND, T0 } from '../support/followers.js';
import { losingAnswers } from '../support/lost-answer.js';
import { createQueue, openStore, type TestStore } from '../support/store.js';

/* Followers, and verbs on them whose COMMIT gets no answer. */

let store: TestStore;
let dead: Queue;
let queue: Queue;

beforeAll(async () => {
  store = await openStore();
});
afterAll(() => store.close());
beforeEach(async () => {
  store.at(T0);
  dead = await createQueue(store, { ordering: 'group' });
  queue = await createQueue(store, { ordering: 'group', deadLetterQueue: dead.name });
});

async function receive(now = T0, of = queue, maxMessages = 10): Promise<LeasedMessage[]> {
  return store.at(now).messages.receive(of, { maxMessages, leaseSeconds: LEASE_SECONDS });
}

async function ack(receipts: readonly LeasedMessage[], of = queue) {
  return store.messages.ackInOrder(of.id, receipts);
}

async function expectEmpty(): Promise<void> {
  for (const { id } of [queue, dead]) {
    expect(await store.unleased.lastId(id)).toBeNull();
    expect(await store.database.read('SELECT * FROM message_group WHERE queue_id = ?', [id])).toEqual([]);
  }
}

/** Sends one message after the other. */
async function send(...all: string[]): Promise<Buffer[]> {
  const ids: Buffer[] = [];
  for (const name of all) ids.push(...(await store.messages.enqueue(queue.name, [named(name)])));
  return ids;
}

const losing = (meanwhile?: () => Promise<void>) => new MessageRepository(losingAnswers(store.database, meanwhile));
const UNKNOWN = { code: 'database-unavailable' };
type Verb = (batches: MessageRepository, request: { queueId: number; receipts: LeasedMessage[] }) => Promise<unknown>;

/** Each verb, and afterwards the messages of the group and of its dead-letter queue. */
const VERBS: [string, Verb, string, string][] = [
  ['an ack', async (batches, request) => batches.ackInOrder([request]), 'a4/1', ''],
  ['a nack', async (batches, request) => batches.nack([{ ...request, delaySeconds: 0 }]), 'a2/2 a3/2 a4/1', ''],
  ['a release', async (batches, request) => batches.release([request]), 'a2/1 a3/1 a4/1', ''],
  ['a reject', async (batches, request) => batches.reject(request), 'a4/1', 'a2/1 a3/1'],
];

/** Holds a1, and behind it a2 and a3. a4 waits. */
async function hold(): Promise<LeasedMessage[]> {
  await send('a1', 'a2', 'a3', 'a4');
  const leased = await receive(T0, queue, 3);
  expect(names(leased)).toBe('a1 a2 a3');
  return leased;
}

it.each(VERBS)('%s happens once, and is answered as unknown', async (_, verb, left, died) => {
  const leased = await hold();
  const request = { queueId: queue.id, receipts: held(leased, 'a2', 'a3') };
  await expect(verb(losing(), request)).rejects.toMatchObject(UNKNOWN);
  expect(await receive()).toEqual([]);
  expect(await ack(held(leased, 'a1'))).toEqual([null]);
  const [rest, letters] = [await receive(), await receive(T0, dead)];
  expect([counted(rest), counted(letters)]).toEqual([left, died]);
  await ack(rest);
  await ack(letters, dead);
  await expectEmpty();
});

it.each(VERBS)('%s takes nothing from the next consumers', async (_, verb, left, died) => {
  const leased = await hold();
  const request = { queueId: queue.id, receipts: held(leased, 'a2', 'a3') };
  let [rest, letters]: [LeasedMessage[], LeasedMessage[]] = [[], []];
  const meanwhile = async (): Promise<void> => {
    expect(await ack(held(leased, 'a1'))).toEqual([null]);
    [rest, letters] = [await receive(), await receive(T0, dead)];
  };
  await expect(verb(losing(meanwhile), request)).rejects.toMatchObject(UNKNOWN);
  expect([counted(rest), counted(letters)]).toEqual([left, died]);
  expect(await ack(rest)).toEqual(rest.map(() => null));
  expect(await ack(letters, dead)).toEqual(letters.map(() => null));
  await expectEmpty();
});

it.each([
  ['still followers', []],
  ['first of their group', ['a1']],
])('an extension succeeds all the same, if they are %s', async (_, gone) => {
  const leased = await hold();
  const meanwhile = async () => void (await ack(held(leased, ...gone)));
  const request = { queueId: queue.id, receipts: held(leased, 'a2', 'a3'), leaseSeconds: 120 };
  expect(await losing(meanwhile).extend([request])).toEqual([
    { outcomes: [null, null], leaseExpiresAt: T0 + 120 * SECOND },
  ]);
  await ack(held(leased, 'a1'));
  expect(await receive(LEASE_END)).toEqual([]);
  expect(await ack(request.receipts)).toEqual([null, null]);
  expect(counted(await receive(LEASE_END))).toBe('a4/1');
});

it('a purge counts too few and leaves none', async () => {
  const leased = await hold();
  const own = new UnleasedRepository(losingAnswers(store.database));
  const purge = async () => own.purge(queue.id, FIRST_ID, Buffer.alloc(16, 255), 100);
  for (let left = 1; left > 0;) ({ left } = await purge());
  expect(await ack(leased)).toEqual(leased.map(() => 'delivery-not-found'));
  await expectEmpty();
});

it.each(['ack', 'move', 'release'] as const)('an operator’s %s happens once', async (does) => {
  const ids = await send('a1', 'a2', 'a3');
  const leased = await receive();
  const target = await createQueue(store, { ordering: 'group' });
  const wish = { does, reaches: () => true, ...(does === 'move' && { target }) };
  const wished = losing().fulfil(ids[1] as Buffer, [queue.id], wish);
  // A release finds the message again where it has put it.
  if (does === 'release') await wished;
  else await expect(wished).rejects.toMatchObject(UNKNOWN);
  expect(await ack(held(leased, 'a1', 'a3'))).toEqual([null, null]);
  const [rest, moved] = [await receive(), await receive(T0, target)];
  expect([counted(rest), counted(moved)]).toEqual({ ack: ['', ''], move: ['', 'a2/1'], release: ['a2/1', ''] }[does]);
});
