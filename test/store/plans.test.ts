import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import { lowestMessageId, newPackId } from '@rowmq/contract';
import {
  FIRST_ID,
  JobRepository,
  type LeasedMessage,
  MessageRepository,
  type Partition,
  type Queue,
  TickRepository,
  SettledRepository,
  WithdrawnRepository,
} from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { publishIn } from '../../libs/store/src/messages/publish-in.js';
import { enqueue } from '../../libs/typeorm/src/index.js';
import { SessionClock } from '../support/clock.js';
import { storeLonely } from '../support/packs.js';
import { storeStamped } from '../support/partitions.js';
import { openPlanner } from '../support/plans.js';
import { testServer } from '../support/servers.js';
import { PEEK_AT_FRONT, recordStatements } from '../support/statements.js';
import { eventually } from '../support/wait.js';
import { createQueue, message, numbered, openStore, SingleMessages, type TestStore } from '../support/store.js';
import { claimFrom } from '../support/claim-from.js';

/*
 * The plans of the hot statements, for the exact text that the repositories send, on empty, small
 * and large tables. A plan must not change with the size of the table. A plan that reads too much
 * meets rows that others hold.
 */

const T0 = 1_800_000_000_000;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

let store: TestStore;
let connection: Connection;
let queue: Queue;
let neighbour: Queue;
let graveyard: Queue;
let statements: string[];

beforeAll(async () => {
  store = await openStore();
  await store.at(T0).partitions.createMissing({ widthMinutes: 60, advanceMinutes: 600 });
  graveyard = await createQueue(store);
  // Above the limit, but below what any test stores: each enqueue counts.
  queue = await createQueue(store, { maxReceives: 5, deadLetterQueue: graveyard.name, maxDepth: 1_000_000 });
  neighbour = await createQueue(store);
  const schedules = Array.from({ length: 300 }, (_, one) => [
    `s${one}`,
    60,
    queue.name,
    '{}',
    1,
    'skip',
    T0 + DAY * one,
    T0 + DAY * one,
    T0,
  ]);
  await store.database.write(
    'INSERT INTO schedule (name, every_seconds, queue, message, enabled, missed, next_at, due_at, created_at) VALUES ?',
    [schedules],
  );
  statements = recordStatements(store.database);
  connection = await openPlanner(store);
});
afterAll(async () => {
  await connection.end();
  await store.close();
});

/** The recorded statement that matches the pattern. */
function sent(what: string, pattern: RegExp): string {
  const statement = statements.map((sql) => sql.trim()).find((sql) => pattern.test(sql));
  if (statement === undefined) throw new Error(`no statement for ${what}`);
  return statement;
}

/** Moves the clock of the store, and of the connection that explains its statements. */
async function moveClock(now: number | undefined): Promise<void> {
  store.at(now);
  await connection.query(new SessionClock(() => now).statement);
}

const LOCK = /LIMIT \d+\s+FOR UPDATE SKIP LOCKED$/;

const HELD_LOCK = /^SELECT[^]*FOR UPDATE( \/\*!80000 OF d \*\/)?$/;

/** The statements that settle some members of deliveries. One deletes whole deliveries. */
function settlingParts(verb: string): Record<string, RegExp> {
  return { [`${verb}: clear`]: /^UPDATE/, [`${verb}: delete`]: /^DELETE d/ };
}

/**
 * Runs each verb once on messages of the third hour, for clients of two queues where a batch takes
 * several. Returns the statements by their purpose.
 */
async function live(): Promise<Map<string, string>> {
  const now = T0 + 3 * HOUR;
  await moveClock(now);
  const found = new Map<string, string>();
  const keep = (verbs: Record<string, RegExp>): void => {
    for (const [verb, pattern] of Object.entries(verbs)) found.set(verb, sent(verb, pattern));
    statements.length = 0;
  };
  statements.length = 0;
  // A broker that has just started: its claims read from the left edge of the index.
  const messages = new SingleMessages(
    new MessageRepository(store.database, undefined, undefined, () => newPackId(now)),
  );
  const { batches } = messages;
  const urgent = { priority: 9 };
  await batches.enqueue([
    { queueName: queue.name, messages: numbered(20, urgent) },
    { queueName: neighbour.name, messages: [message()] },
  ]);
  keep({
    'enqueue: lock queues and check versions': /^SET @queue_\d+ = [^]*LOCK IN SHARE MODE/,
    'enqueue: packs': /^INSERT INTO pack/,
    'enqueue: deliveries': /^INSERT INTO delivery/,
    'enqueue: count for maxDepth': /^SELECT SUM\(BIT_COUNT\(members\)\) AS messages/,
  });

  await store.topics.put('plans');
  for (const { name } of [queue, neighbour]) await store.topics.putSubscription('plans', name, null);
  statements.length = 0;
  await batches.publish([{ topicName: 'plans', messages: [{ ...message(urgent), values: {} }] }]);
  keep({
    'publish: topic and subscriptions': /^SELECT t\.id/,
    'publish: queues': /^SELECT[^]*id IN \(SELECT s\.queue_id/,
    'publish: lock topics and check versions': /^SET @topic_\d+ = [^]*LOCK IN SHARE MODE/,
    'publish: lock queues and check versions': /^SET @queue_\d+ = [^]*LOCK IN SHARE MODE/,
    'publish: packs': /^INSERT INTO pack/,
    'publish: deliveries': /^INSERT INTO delivery/,
  });
  const inOrder = { topicName: 'plans-in-order', messages: [{ ...message({ groupId: 'g' }), values: {} }] };
  await store.queues.put('in-order', { ordering: 'group' });
  await store.topics.put('plans-in-order');
  for (const name of ['in-order', neighbour.name]) await store.topics.putSubscription('plans-in-order', name, null);
  await batches.publish([inOrder]);
  keep({
    'publish in order: lock topics': /^SELECT id, version\s+FROM topic[^]*LOCK IN SHARE MODE$/,
    'publish in order: lock queues': /^SELECT id, version\s+FROM queue[^]*LOCK IN SHARE MODE$/,
  });
  await store.database.transaction((tx) => publishIn(tx, inOrder));
  keep({
    'publish in a transaction: topic and subscriptions': /^SELECT t\.id/,
    'publish in a transaction: lock names': /^SELECT id FROM queue FORCE INDEX \(queue_by_name\)/,
  });
  await store.topics.put('passing');
  await store.topics.putSubscription('passing', queue.name, null);
  await store.topics.deleteSubscription('passing', queue.name);
  keep({ 'unsubscribe: delete': /^DELETE s/ });
  await store.topics.delete('passing');
  keep({ 'delete topic: delete subscriptions': /^DELETE s/ });

  // Messages that are packs of their own, as of producers that send one at a time.
  for (let one = 0; one < 20; one += 1) await messages.enqueue(queue.name, [message(urgent)]);
  statements.length = 0;
  const leased = await messages.dequeue(queue, { maxMessages: 40, leaseSeconds: 30 });
  expect(leased).toHaveLength(40);
  keep({
    'claim: peek': PEEK_AT_FRONT,
    'claim: settings': /^SELECT id, max_receives[^]*FROM queue FORCE INDEX \(PRIMARY\)/,
    'claim: lock': LOCK,
    'claim, nack, expire …: delete': /^DELETE d/,
    'claim, nack …: insert': /^INSERT INTO delivery/,
    'claim: bodies': /FROM pack FORCE/,
  });

  await messages.extend(queue.id, leased.slice(0, 5), { leaseSeconds: 60 });
  keep({ 'nack, extend, release, reject: lock': HELD_LOCK });
  await batches.reject({ queueId: queue.id, receipts: leased.slice(5, 8) });
  keep({ 'reject, dead-letter: lock settings': /^SELECT max_receives[^]*LOCK IN SHARE MODE$/ });
  await messages.ack(queue.id, leased.slice(30));
  keep({ 'ack of one claim': /^DELETE d/ });
  // Some members of a pack, and the only ones of others.
  await messages.ack(queue.id, [...leased.slice(16, 20), ...leased.slice(25, 30)]);
  keep(settlingParts('ack of parts'));
  await messages.nack(queue.id, leased.slice(8, 12), { delaySeconds: 60 });
  const lost = leased.map((one, index): LeasedMessage => ({ ...one, leaseToken: Buffer.alloc(8, index + 1) }));
  await messages.ack(queue.id, lost);
  keep({ 'receipts: why they failed': /^SELECT d\.queue_id AS queueId, d\.pack_id AS packId, d\.members/ });

  // Each from a claim of its own: a list takes the place of one condition for each.
  const each: LeasedMessage[] = [];
  for (let one = 0; one < 70; one += 1) {
    await messages.enqueue(queue.name, [message(urgent)]);
    each.push(...(await messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 30 })));
  }
  statements.length = 0;
  await messages.ack(queue.id, each.slice(0, 8));
  keep({ 'ack of several claims': /^DELETE d/ });
  await messages.nack(queue.id, each.slice(8), { delaySeconds: 60 });
  keep({ 'nack … of many claims: lock': HELD_LOCK, 'nack … of many claims: delete': /^DELETE d/ });
  await messages.ack(queue.id, each.slice(8));
  keep({ 'ack of many claims': /^DELETE d/ });

  const { found: positions } = await store.unleased.findExpired(queue.id, FIRST_ID, 1000);
  expect(positions).toEqual([]);
  keep({
    'walk: end of a stretch': /^SELECT pack_id AS packId[^]*LIMIT \d+, 1$/,
    'expire: find': /ORDER BY d\.pack_id$/,
  });
  await store.unleased.findOverReceived(queue, FIRST_ID, 1000);
  keep({ 'dead-letter: find': /ORDER BY d\.pack_id$/ });
  await store.unleased.lastId(queue.id);
  keep({ 'purge: last id': /ORDER BY pack_id DESC LIMIT 1$/ });

  for (const state of ['ready', 'delayed', 'leased'] as const) {
    const page = await store.browse.browse(queue.id, state, 1, undefined);
    keep({ [`browse ${state}`]: /ORDER BY priority_rank, available_at/ });
    const after = page.nextAfter ?? `3.${now}.${Buffer.alloc(27).toString('base64url')}`;
    await store.browse.browse(queue.id, state, 1, after);
    keep({ [`browse ${state}, next page`]: /ORDER BY priority_rank, available_at/ });
  }
  await store.browse.stats(queue.id);
  keep({ stats: /AS oldest/ });
  await store.browse.countBySource(queue.id, 10_000);
  keep({ 'dead letters by source': /^SELECT oldest\.source_queue_id/ });
  const [any] = leased as [LeasedMessage];
  await store.browse.messages([any.messageId]);
  keep({ 'look-up: body': /^SELECT id, queue_id AS queueId, topic_id[^]*UNION ALL/ });
  await store.browse.deliveries(any.messageId, [queue.id, neighbour.id]);
  keep({ 'look-up: deliveries': /members & \d+ <> 0$/ });

  const [cancelled] = await messages.enqueue(neighbour.name, [message({ delaySeconds: 60 })]);
  statements.length = 0;
  await batches.cancel(cancelled as Buffer, [queue.id, neighbour.id]);
  keep({ 'cancel: find': /ORDER BY d\.queue_id$/, 'cancel: lock': /FOR UPDATE SKIP LOCKED$/ });

  await store.database.write('INSERT IGNORE INTO withdrawn (pack_id, queue_id, how, members) VALUES (?, 1, 1, 1)', [
    newPackId(1),
  ]);
  statements.length = 0;
  await new WithdrawnRepository(store.database).forgetReaped(FIRST_ID, 1000);
  keep({ 'withdrawn: find those of reaped packs': /^SELECT w\.pack_id/, 'withdrawn: delete': /^DELETE w/ });

  await new TickRepository(store.database).due();
  keep({ 'schedules: what is due': /FROM schedule FORCE INDEX \(schedule_due\)/ });

  const partition = (await store.partitions.list()).find(({ until }) => (until ?? 0) > now) as Partition;
  statements.length = 0;
  await store.partitions.thin(partition, lowestMessageId(partition.from ?? 0), 10_000);
  keep({
    'thin: packs': /^SELECT id FROM pack FORCE/,
    'thin: deliveries': /^SELECT DISTINCT pack_id/,
    'thin: delete': /^DELETE p\s+FROM JSON_TABLE/,
  });
  await store.partitions.countOwed(partition, 1000);
  keep({ 'thin: count owed': /^SELECT COUNT\(\*\) AS n FROM \(SELECT 1 FROM delivery/ });
  const settled = new SettledRepository(store.database);
  await settled.find(queue.id, lowestMessageId(now), lowestMessageId(now + HOUR), 1000);
  keep({
    'replay: packs': /^\(SELECT id, queue_id AS queueId, topic_id AS topicId, count FROM pack FORCE/,
    'replay: subscriptions': /^SELECT topic_id AS topicId/,
    'replay: deliveries': /^SELECT pack_id AS packId, BIT_OR\(members\)/,
    'replay: withdrawn messages': /^SELECT pack_id AS packId, BIT_OR\(members\) AS members\s+FROM withdrawn/,
  });
  await moveClock(now + DAY / 2);
  await store.partitions.listKept({ retentionSeconds: 1 });
  keep({ 'drop: is anything owed': /^SELECT 1 FROM delivery FORCE[^]*LIMIT 1$/ });

  // Dead letters go back where they were enqueued.
  await store.unleased.redrive(graveyard.id, FIRST_ID, 1000);
  keep({
    'redrive: lock targets': /^SELECT id, message_ttl_seconds[^]*LOCK IN SHARE MODE$/,
    'expire, dead-letter, redrive, purge: lock': /FOR UPDATE SKIP LOCKED$/,
  });
  const jobs = new JobRepository(store.database);
  const everything = { filter: {}, patterns: [], target: null, messagesPerSecond: null, maxMessages: null };
  const { id: job } = await jobs.create({ kind: 'redrive', queue: graveyard, ...everything });
  await jobs.idle(10);
  keep({ 'jobs: which nobody has': /FROM `job` [^]*LIMIT 10$/ });
  await jobs.acquire(job, 'worker');
  await jobs.runBatch(job, 'worker', { rows: 500, most: Infinity });
  keep({
    'jobs: take over': /^UPDATE job FORCE/,
    'jobs: lock': /^SELECT step, worker, state FROM job[^]*FOR UPDATE$/,
    'jobs: count a batch': /^UPDATE job\s+SET examined/,
  });
  await jobs.forget(3600, 100);
  keep({ 'jobs: forget': /^SELECT .* FROM `job` .* LIMIT 100$/ });
  await moveClock(now + 1000);
  await store.unleased.purge(queue.id, lowestMessageId(now), lowestMessageId(now + HOUR), 10_000);
  keep({ 'purge: lock leased': HELD_LOCK, 'purge: lock others': /FOR UPDATE SKIP LOCKED$/ });
  await moveClock(now);

  const inTransaction = store.database.dataSource.transaction(async (manager) => {
    await enqueue(manager, queue.name, [{ body: 'of a service' }]);
    throw new Error('undo it');
  });
  await expect(inTransaction).rejects.toThrow('undo it');
  keep({
    'transactional enqueue: settings': /^SELECT\s+id,\s+name[^]* FROM queue WHERE name = .+$/,
    'transactional enqueue: lock name': /^SELECT id, [^]* FROM queue FORCE INDEX[^]*LOCK IN SHARE MODE$/,
  });
  return found;
}

async function fill(rows: number): Promise<void> {
  await connection.query('DELETE FROM delivery');
  await connection.query('DELETE FROM pack');
  for (let hour = 0; hour < 6; hour += 1) {
    const count = Math.floor((rows + 5 - hour) / 6);
    await storeStamped(store, queue, { at: T0 + hour * HOUR, now: T0, count });
  }
  await connection.query('ANALYZE TABLE delivery, pack, schedule');
}

interface Plan {
  table: string;
  select_type: string;
  partitions: string | null;
  type: string;
  key: string | null;
  key_len: string | null;
  rows: number;
  Extra: string;
}

async function explain(sql: string): Promise<Plan[]> {
  const form = testServer().kind === 'mysql' ? 'EXPLAIN FORMAT=TRADITIONAL' : 'EXPLAIN PARTITIONS';
  const plans: Plan[] = [];
  // SET has no plan, only the queries that compute its values.
  const queries = sql.startsWith('SET ')
    ? [...sql.matchAll(/= \((SELECT .*?LOCK IN SHARE MODE)\)/g)].map(([, query]) => query)
    : [sql];
  for (const query of queries) plans.push(...((await connection.query(`${form} ${query}`))[0] as Plan[]));
  return plans;
}

/**
 * The fixed part of a plan: how each table is read, through which index, how many bytes of its key
 * and how many partitions, and whether the server sorts.
 */
function essence(plans: Plan[]): string[] {
  const each = plans
    .filter(({ table }) =>
      [
        'queue',
        'delivery',
        'd',
        'pack',
        'p',
        'pack_overflow',
        'schedule',
        'topic',
        't',
        's',
        'withdrawn',
        'w',
        'subscription',
        'job',
        'JobEntity',
      ].includes(table),
    )
    .map(({ table, select_type: what, partitions, type, key, key_len: bytes, Extra }) => {
      const sorted = /filesort|temporary/i.exec(Extra ?? '');
      const access = what === 'INSERT' ? 'insert' : `${type} on ${key} (${bytes})`;
      return `${table}: ${access}${partitions ? `, ${partitions.split(',').length} partition(s)` : ''}${sorted ? `, ${sorted[0]}` : ''}`;
    });
  // A UNION has one plan for each part.
  return [...new Set(each)];
}

const ROWS = [0, 3, 200, 20_000];
/** Without locks, a small table may be read from its start as well. */
const WALK = expect.stringMatching(
  /^delivery: (range on PRIMARY \(20\)|ref on PRIMARY \(4\)|index on PRIMARY \(30\))$/,
);

describe.each(ROWS)('with %i messages in the queue', (rows) => {
  const explained = new Map<string, Plan[]>();
  beforeAll(async () => {
    await fill(rows);
    for (const [verb, statement] of await live()) explained.set(verb, await explain(statement));
  });

  it('every hot statement uses the intended index without a sort and reads one partition of packs', () => {
    const plans: Record<string, string[]> = {};
    for (const [verb, planned] of explained) plans[verb] = essence(planned);
    expect(plans).toEqual({
      'enqueue: lock queues and check versions': ['queue: const on PRIMARY (4)'],
      // MariaDB's plan of an INSERT does not tell its partitions.
      'enqueue: packs': [expect.stringMatching(/^pack: insert(, 1 partition\(s\))?$/)],
      'enqueue: deliveries': ['delivery: insert'],
      'enqueue: count for maxDepth': ['delivery: ref on PRIMARY (4)'],
      'publish: topic and subscriptions': ['t: const on topic_by_name (82)', 's: ref on PRIMARY (4)'],
      'publish: queues': [
        't: const on topic_by_name (82)',
        's: ref on PRIMARY (4)',
        // Without locks, MariaDB may read a small table as a whole.
        expect.stringMatching(/^queue: (eq_ref on PRIMARY \(4\)|ALL on null \(null\))$/),
      ],
      'publish: lock topics and check versions': ['topic: const on PRIMARY (4)'],
      'publish: lock queues and check versions': ['queue: const on PRIMARY (4)'],
      'publish in order: lock topics': ['topic: const on PRIMARY (4)'],
      'publish in order: lock queues': ['queue: range on PRIMARY (4)'],
      'publish in a transaction: topic and subscriptions': ['t: const on topic_by_name (82)', 's: ref on PRIMARY (4)'],
      'publish in a transaction: lock names': ['queue: range on queue_by_name (83)'],
      'withdrawn: find those of reaped packs': [
        'w: range on PRIMARY (16)',
        'pack_overflow: eq_ref on PRIMARY (16)',
        expect.stringMatching(/^pack: eq_ref on PRIMARY \(16\), \d+ partition\(s\)$/),
      ],
      'withdrawn: delete': [expect.stringMatching(/^w: (ref|range) on PRIMARY \(16\)$/)],
      'replay: subscriptions': ['subscription: ref on subscription_by_queue (4)'],
      'replay: withdrawn messages': ['withdrawn: range on PRIMARY (20)'],
      'publish: packs': [expect.stringMatching(/^pack: insert(, 1 partition\(s\))?$/)],
      'publish: deliveries': ['delivery: insert'],
      // On MySQL, a whole key that names no row has no plan.
      'unsubscribe: delete': expect.toSatisfy(
        (plan: string[]) => plan.length === 0 || /^s: (range|ref|const|eq_ref) on PRIMARY \(8\)$/.test(plan.join()),
      ),
      'delete topic: delete subscriptions': ['s: ref on PRIMARY (4)'],
      'claim: peek': ['d: range on delivery_next (13)'],
      'claim: settings': ['queue: const on PRIMARY (4)'],
      'claim: lock': ['d: range on delivery_next (13)'],
      'claim, nack, expire …: delete': ['d: range on PRIMARY (30)'],
      'claim, nack …: insert': ['delivery: insert'],
      'claim: bodies': ['pack: range on PRIMARY (16), 1 partition(s)'],
      'nack, extend, release, reject: lock': ['d: ref on PRIMARY (28)'],
      'reject, dead-letter: lock settings': ['queue: const on PRIMARY (4)'],
      'ack of one claim': ['d: range on PRIMARY (30)'],
      'ack of parts: clear': ['d: range on PRIMARY (30)'],
      'ack of parts: delete': ['d: range on PRIMARY (30)'],
      'ack of several claims': ['d: range on PRIMARY (30)'],
      'ack of many claims': ['d: eq_ref on PRIMARY (30)'],
      'nack … of many claims: lock': ['d: ref on PRIMARY (28)'],
      'nack … of many claims: delete': ['d: eq_ref on PRIMARY (30)'],
      'receipts: why they failed': ['d: ref on PRIMARY (20)'],
      'walk: end of a stretch': [WALK],
      'expire: find': ['d: range on PRIMARY (20)'],
      'dead-letter: find': ['d: range on PRIMARY (20)'],
      'purge: last id': ['delivery: ref on PRIMARY (4)'],
      'browse ready': ['delivery: range on delivery_next (13)'],
      'browse ready, next page': ['delivery: range on delivery_next (13)'],
      'browse delayed': ['delivery: range on delivery_next (13)'],
      'browse delayed, next page': ['delivery: range on delivery_next (13)'],
      'browse leased': ['delivery: range on delivery_next (13)'],
      'browse leased, next page': ['delivery: range on delivery_next (13)'],
      stats: ['delivery: ref on PRIMARY (4)'],
      'dead letters by source': ['delivery: ref on PRIMARY (4)'],
      'look-up: body': ['pack: const on PRIMARY (16), 1 partition(s)'],
      'look-up: deliveries': ['delivery: range on PRIMARY (20)'],
      'cancel: find': ['d: range on PRIMARY (20)'],
      'cancel: lock': ['d: ref on delivery_next (37)'],
      'schedules: what is due': ['schedule: range on schedule_due (9)'],
      'thin: packs': ['pack: range on PRIMARY (16), 1 partition(s)'],
      // DISTINCT collects the ids of a thousand packs at most.
      'thin: deliveries': [
        expect.stringMatching(/^delivery: (range on PRIMARY \(20\)|index on PRIMARY \(30\)), temporary$/),
      ],
      // The server opens all partitions, and looks up each id in its own.
      'thin: delete': [expect.stringMatching(/^p: eq_ref on PRIMARY \(16\), \d+ partition\(s\)$/)],
      'thin: count owed': [WALK],
      'replay: packs': [
        'pack: range on PRIMARY (16), 1 partition(s)',
        expect.stringMatching(/^pack_overflow: (range|index) on PRIMARY \(16\)$/),
      ],
      // GROUP BY collects the ids of a thousand packs at most.
      'replay: deliveries': [
        expect.stringMatching(/^delivery: (range on PRIMARY \(20\)|index on PRIMARY \(29\))(, temporary)?$/),
      ],
      'drop: is anything owed': [WALK],
      'redrive: lock targets': ['queue: const on PRIMARY (4)'],
      'expire, dead-letter, redrive, purge: lock': ['d: ref on delivery_next (29)'],
      // A small table may be read from its start as well.
      'jobs: which nobody has': [expect.stringMatching(/^JobEntity: (range|index) on job_by_end \(17\)$/)],
      'jobs: take over': ['job: range on PRIMARY (16)'],
      'jobs: lock': ['job: const on PRIMARY (16)'],
      'jobs: count a batch': ['job: range on PRIMARY (16)'],
      'jobs: forget': [expect.stringMatching(/^JobEntity: (range on job_by_end \(9\)|index on job_by_end \(17\))$/)],
      'purge: lock leased': ['d: eq_ref on PRIMARY (30)'],
      'transactional enqueue: settings': ['queue: const on queue_by_name (83)'],
      'transactional enqueue: lock name': ['queue: const on queue_by_name (83)'],
      // With the pack's id, and in a small table also with the token that follows it in the index.
      'purge: lock others': [expect.stringMatching(/^d: range on delivery_next \((29|37)\)$/)],
    });
    if (testServer().kind === 'mysql') expect(plans['enqueue: packs']).toEqual(['pack: insert, 1 partition(s)']);
    if (rows < 200) return;
    for (const verb of ['walk: end of a stretch', 'thin: count owed', 'drop: is anything owed']) {
      expect(plans[verb]).toEqual(['delivery: range on PRIMARY (20)']);
    }
  });

  it('statements that name whole primary keys expect to read only the rows that they name', () => {
    const expected: [string, number][] = [];
    for (const [verb, planned] of explained) {
      for (const { table, key, key_len: bytes, rows: read } of planned) {
        // For a prefix of the key, the estimate depends on statistics of the whole table.
        const isWhole = key === 'PRIMARY' && bytes === (['pack', 'p'].includes(table) ? '16' : '30');
        if (isWhole && /: delete$|bodies$|lock leased$|look-up: body$/.test(verb)) expected.push([verb, Number(read)]);
      }
    }
    expect(expected.length).toBeGreaterThanOrEqual(6);
    // The claim leased 21 deliveries.
    expect(expected.filter(([, rowsRead]) => rowsRead > 21)).toEqual([]);
  });
});

/** MariaDB turns lists of a thousand values or more into joins, unless told not to. */
it('a batch of more than a thousand packs is found like a small one', async () => {
  await fill(6 * 1200);
  await moveClock(T0 + HOUR);
  statements.length = 0;
  const messages = new SingleMessages(new MessageRepository(store.database));
  const demands = Array.from({ length: 12 }, () => ({ maxMessages: 100, leaseSeconds: 60 }));
  const leased = (await claimFrom(messages.batches, queue, demands)).leased.flat();
  expect(leased).toHaveLength(1200);
  const claim = { delete: sent('delete', /^DELETE d/), bodies: sent('bodies', /FROM pack FORCE/) };
  statements.length = 0;
  await messages.ack(queue.id, leased);
  const settle = sent('settle', /^DELETE d/);
  const named = `(${leased.map(({ messageId }) => `x'${messageId.toString('hex')}'`).join(',')})`;
  expect([claim.delete, claim.bodies, settle].every((sql) => sql.includes(named))).toBe(true);
  statements.length = 0;
  await store.unleased.purge(queue.id, FIRST_ID, lowestMessageId(T0 + 2 * HOUR), 10_000);
  const purge = { lock: sent('lock', /FOR UPDATE SKIP LOCKED$/), delete: sent('delete', /^DELETE d/) };
  const plan = async (sql: string): Promise<string[]> => essence(await explain(sql));
  expect(await plan(claim.delete)).toEqual(['d: range on PRIMARY (30)']);
  expect(await plan(claim.bodies)).toEqual(['pack: range on PRIMARY (16), 1 partition(s)']);
  expect(await plan(settle)).toEqual(['d: range on PRIMARY (30)']);
  expect(await plan(purge.lock)).toEqual([expect.stringMatching(/^d: range on delivery_next \((29|37)\)$/)]);
  expect(await plan(purge.delete)).toEqual(['d: range on PRIMARY (30)']);
});

describe.each(ROWS)('with %i messages that are ready', (rows) => {
  /**
   * One queue has messages of one priority, one has all ten, and nobody has claimed from the third.
   * Scan floors need the database's clock.
   */
  async function claimStatements(
    priorities: number,
  ): Promise<{ peek: string; lock: string; below: string; ready: string }> {
    await moveClock(undefined);
    await connection.query('DELETE FROM delivery');
    const own = await createQueue(store);
    const batches = new MessageRepository(store.database);
    const now = Date.now();
    for (let done = 0; done < rows; done += 1000) {
      const some = Array.from({ length: Math.min(1000, rows - done) }, (_, index) => ({
        packId: newPackId(),
        queueId: own.id,
        body: 'ready',
        priorityRank: 9 - (index % Math.max(priorities, 1)),
        availableAt: now,
        expiresAt: now + DAY,
      }));
      for (const { sql, values = [] } of storeLonely(some)) await connection.query(sql, [...values]);
    }
    await connection.query('ANALYZE TABLE delivery');
    const demands = [{ maxMessages: 10, leaseSeconds: 60 }];
    const seen = () => Array.from({ length: Math.max(priorities, 1) }, (_, priority) => message({ priority }));
    // The first claim begins at the start of every priority. Later claims begin at the floors of
    // the priorities that it saw.
    if (priorities > 0) await claimFrom(batches, own, demands);
    await batches.enqueue([{ queueName: own.name, messages: seen() }]);
    const claiming = priorities > 0 ? batches : new MessageRepository(store.database);
    // Every 200 ms, a claim looks in all priorities.
    const [peek, lock] = await eventually('a claim looks in the priorities that it knows', async () => {
      statements.length = 0;
      await claimFrom(claiming, own, demands);
      const found = sent('claim: peek', PEEK_AT_FRONT);
      return found.match(/priority_rank = /g)?.length === (priorities || 10) && [found, sent('claim: lock', LOCK)];
    });
    // Delay everything. The next claim then finds nothing, reads below the floors and finds nothing
    // there.
    await connection.query('UPDATE delivery SET available_at = available_at + ? WHERE queue_id = ?', [DAY, own.id]);
    const below = /priority_rank = 0 AND available_at BETWEEN 0 AND[^]*LIMIT 500$/;
    await eventually('a rescan', async () => {
      await claimFrom(claiming, own, demands);
      return statements.some((sql) => below.test(sql.trim()));
    });
    await claiming.poll([own.id, queue.id, neighbour.id]);
    return { peek, lock, below: sent('rescan', below), ready: sent('poll', /priority_rank IN \([^]*LIMIT 500$/) };
  }

  it.each([0, 1, 10])(
    'a claim above the floors of %i priorities and a rescan below them read the index in its order',
    async (priorities) => {
      const { peek, lock, below, ready } = await claimStatements(priorities);
      for (const sql of [peek, lock]) expect(essence(await explain(sql))).toEqual(['d: range on delivery_next (13)']);
      for (const sql of [below, ready]) {
        expect(essence(await explain(sql))).toEqual(['delivery: range on delivery_next (13)']);
      }
      if (testServer().kind !== 'mysql') return;
      // The server expects one row a range. FORCE INDEX keeps MySQL from diving into the index for
      // an estimate. In a deep queue that would cost ten times as much as the peek.
      for (const sql of [peek, lock]) {
        const ranges = sql.match(/priority_rank = /g)?.length;
        expect((await explain(sql)).map((plan) => plan.rows)).toEqual([ranges]);
      }
    },
  );
});

describe('the hot statements', () => {
  async function lockedRows(work: () => Promise<unknown>): Promise<number> {
    await connection.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED');
    await connection.beginTransaction();
    try {
      await work();
      return await rowsLockedNow();
    } finally {
      await connection.rollback();
    }
  }

  /**
   * InnoDB renews what INNODB_TRX shows only if nobody has read it for 100 ms. Rows that show this
   * very query are new.
   */
  async function rowsLockedNow(): Promise<number> {
    return eventually('INNODB_TRX shows the present', async () => {
      await sleep(120);
      const mark = `now-${randomUUID()}`;
      const [rows] = await connection.query<RowDataPacket[]>(
        `SELECT trx_rows_locked AS n, trx_query LIKE '%${mark}%' AS isNew FROM information_schema.INNODB_TRX
          WHERE trx_mysql_thread_id = CONNECTION_ID()`,
      );
      const [row] = rows as { n: number; isNew: number }[];
      return row?.isNew === 1 && Number(row.n);
    });
  }

  /** A claim of the filled queue's messages, which are ready since the first hour. */
  async function claimStatement(size: number): Promise<string> {
    await moveClock(T0 + HOUR);
    statements.length = 0;
    await store.messages.dequeue(queue, { maxMessages: size, leaseSeconds: 30 });
    return sent('claim: lock', LOCK);
  }

  it('lock rows in proportion to the size of a claim, not to the depth of the backlog', async () => {
    await fill(20_000);
    for (const size of [1, 10, 100]) {
      const statement = await claimStatement(size);
      // An index entry and a row for each delivery, and the entry after the end of a range.
      expect(await lockedRows(() => connection.query(statement))).toBeLessThanOrEqual(2 * size + 2);
    }
  });

  it('lock for an ack or a nack only its own rows, in a small and a large queue', async () => {
    for (const rows of [3, 200]) {
      await fill(rows);
      await moveClock(T0 + HOUR);
      await store.messages.enqueue(queue.name, numbered(20, { priority: 9 }));
      for (let one = 0; one < 20; one += 1) await store.messages.enqueue(queue.name, [message({ priority: 9 })]);
      const leased = await store.messages.dequeue(queue, { maxMessages: 40, leaseSeconds: 30 });
      const deliveries = 21;
      await connection.query('DROP TEMPORARY TABLE IF EXISTS before_ack');
      await connection.query('CREATE TEMPORARY TABLE before_ack AS SELECT * FROM delivery');
      statements.length = 0;
      await store.messages.ack(queue.id, leased.slice(10));
      const settle = Object.entries(settlingParts('ack')).map(([verb, pattern]) => sent(verb, pattern));
      await connection.query('DELETE FROM delivery');
      await connection.query('INSERT INTO delivery SELECT * FROM before_ack');
      const locked = await lockedRows(async () => {
        const answers: unknown[] = [];
        for (const sql of settle) answers.push((await connection.query(sql))[0]);
        expect(answers).toMatchObject([{ affectedRows: deliveries }, { affectedRows: deliveries - 1 }]);
      });
      expect(locked).toBeLessThanOrEqual(2 * deliveries + 2);
    }
  });

  it('lock rows for a claim that other claims skip, and block no ack of another delivery', async () => {
    await fill(50);
    const now = T0 + HOUR;
    const held = await store.at(now).messages.dequeue(queue, { maxMessages: 5, leaseSeconds: 30 });
    const statement = await claimStatement(20);
    await lockedRows(async () => {
      const [locked] = await connection.query(statement);
      expect(locked).toHaveLength(20);
      const others = await store.at(now).messages.dequeue(queue, { maxMessages: 100, leaseSeconds: 30 });
      const lockedIds = new Set((locked as { packId: Buffer }[]).map(({ packId }) => packId.toString('hex')));
      expect(others.filter(({ messageId }) => lockedIds.has(messageId.toString('hex')))).toEqual([]);
      expect(others.length).toBeGreaterThan(0);
      expect(await store.at(now).messages.ack(queue.id, held)).toEqual([null, null, null, null, null]);
    });
  });
});
