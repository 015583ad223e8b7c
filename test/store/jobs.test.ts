import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { indexInPack, LIMITS, type MessageFilter, packIdOf, type RowmqError } from '@rowmq/contract';
import {
  BrowseRepository,
  type Database,
  type JobEntity,
  JobLost,
  JobRepository,
  type NewJob,
  type Queue,
  type Row,
} from '@rowmq/store';
import { owedIds } from '../support/deliveries.js';
import { losingAnswers } from '../support/lost-answer.js';
import { claimAll, deadLetterAll, hex, MINUTE, openSession, START } from '../support/partitions.js';
import { createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

const DAY = 1440 * MINUTE;
const ME = 'me';
const ALL = { rows: 500, most: Infinity };

let store: TestStore;
let jobs: JobRepository;
let graveyard: Queue;
let origin: Queue;

beforeAll(async () => {
  store = await openStore();
  jobs = new JobRepository(store.database);
  return () => store.close();
});

beforeEach(async () => {
  graveyard = await createQueue(store, { messageTtlSeconds: 864_000 });
  origin = await createOrigin();
});

function createOrigin(): Promise<Queue> {
  return createQueue(store, { messageTtlSeconds: 864_000, maxReceives: 1, deadLetterQueue: graveyard.name });
}

/** Enqueues messages and has them dead-lettered two minutes later. */
async function bury(queue: Queue, messages: Parameters<typeof message>[0][], at = START): Promise<Buffer[]> {
  const ids = await store.at(at).messages.enqueue(queue.name, messages.map(message));
  await claimAll(store, queue, at);
  expect(await deadLetterAll(store, queue, at + 2 * MINUTE)).toBe(messages.length);
  return ids;
}

function begin(kind: NewJob['kind'], wishes: Partial<NewJob> = {}, at = START + 10 * MINUTE): Promise<JobEntity> {
  store.at(at);
  return jobs.create({
    kind,
    queue: graveyard,
    target: null,
    filter: {},
    patterns: [],
    messagesPerSecond: null,
    maxMessages: null,
    ...wishes,
  });
}

/** Carries out a job to its end, by batches of such a size. */
async function carryOut({ id }: JobEntity, size = ALL, by = jobs): Promise<JobEntity> {
  expect(await jobs.acquire(id, ME)).toBe(true);
  for (let batches = 0; batches < 100; batches += 1) {
    const { job } = await by.runBatch(id, ME, size);
    if (job.state === 'done') return jobs.get(id);
  }
  throw new Error('the job does not end');
}

async function run(kind: NewJob['kind'], wishes: Partial<NewJob> = {}, size = ALL): Promise<JobEntity> {
  return carryOut(await begin(kind, wishes), size);
}

const idsIn = (queue: Queue): Promise<string[]> => owedIds(store, queue);

describe('a redrive', () => {
  test.each([
    ['all at once', ALL],
    ['a few deliveries at a time', { rows: 2, most: Infinity }],
    ['a few messages at a time, less than a pack holds', { rows: 500, most: 3 }],
  ])('moves each message once, %s, and counts it once', async (_, size) => {
    const second = await createOrigin();
    const ids = [await bury(origin, numbered(40)), await bury(second, numbered(5)), await bury(origin, numbered(1))];
    const [native] = await store.at(START).messages.enqueue(graveyard.name, [message()]);
    expect(await run('redrive', {}, size)).toMatchObject({
      state: 'done',
      total: 47,
      examined: 47,
      done: 46,
      skipped: 1,
      worker: null,
      finishedAt: START + 10 * MINUTE,
    });
    expect(await idsIn(origin)).toEqual(hex([...ids[0]!, ...ids[2]!]));
    expect(await idsIn(second)).toEqual(hex(ids[1]!));
    expect(await idsIn(graveyard)).toEqual(hex([native!]));
  });

  test.each([
    ['whose queue was deleted', async (lost: Queue) => void (await store.queues.delete(lost.name)), []],
    ['whose queue its key does not reach', async () => undefined, ['reached']],
  ])('gets past a pack that is larger than its batches and %s', async (_, lose, patterns) => {
    const lost = await createOrigin();
    await bury(lost, numbered(20));
    const ids = await bury(origin, numbered(2), START + MINUTE);
    await lose(lost);
    const reached = patterns.map(() => origin.name);
    const job = await run('redrive', { patterns: reached }, { rows: 500, most: 3 });
    expect(job).toMatchObject({ state: 'done', examined: 22, done: 2, skipped: 20 });
    expect(await idsIn(origin)).toEqual(hex(ids));
  });

  test('counts a batch once whose COMMIT gets no answer', async () => {
    const ids = await bury(origin, numbered(40));
    const losing = new JobRepository(losingAnswers(store.database));
    const job = await carryOut(await begin('redrive'), { rows: 500, most: 15 }, losing);
    expect(job).toMatchObject({ examined: 40, done: 40, skipped: 0 });
    expect(await idsIn(origin)).toEqual(hex(ids));
  });

  test('moves everything to the queue that it names, also what was enqueued here, and no more than asked', async () => {
    const target = await createQueue(store);
    const ids = await bury(origin, numbered(3));
    const natives = await store.at(START + MINUTE).messages.enqueue(graveyard.name, numbered(2));
    expect(await run('redrive', { target, maxMessages: 4 })).toMatchObject({ done: 4, skipped: 0, total: 5 });
    expect(await idsIn(target)).toEqual(hex([...ids, natives[0]!]));
    expect(await run('redrive', { target })).toMatchObject({ done: 1 });
    // From there, each goes home.
    expect(await run('redrive', { queue: target })).toMatchObject({ done: 5, skipped: 0 });
    expect(await idsIn(origin)).toEqual(hex(ids));
    expect(await idsIn(graveyard)).toEqual(hex(natives));
  });

  test('leaves what came after its beginning, so what fails again does not go round', async () => {
    const ids = await bury(origin, numbered(3));
    const job = await begin('redrive');
    expect(await jobs.acquire(job.id, ME)).toBe(true);
    // One of its messages goes and fails again before the job comes to it; one is new.
    await store.at(START + 11 * MINUTE).unleased.redrive(graveyard.id, Buffer.alloc(16), 500, 1);
    await claimAll(store, origin, START + 11 * MINUTE);
    expect(await deadLetterAll(store, origin, START + 13 * MINUTE)).toBe(1);
    const later = await bury(origin, numbered(1), START + 20 * MINUTE);
    const { job: after } = await jobs.runBatch(job.id, ME, ALL);
    expect(after).toMatchObject({ state: 'done', done: 2 });
    expect(await idsIn(origin)).toEqual(hex(ids.slice(1)));
    expect(await idsIn(graveyard)).toEqual(hex([ids[0]!, ...later]));
  });

  test('comes back for messages that another transaction has locked, and gives them up in the end', async () => {
    const [held] = await bury(origin, numbered(1));
    await bury(origin, numbered(2));
    const other = await openSession(store);
    const lock = async (): Promise<void> => {
      await other.write('START TRANSACTION');
      await other.read('SELECT 1 FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? AND pack_id = ? FOR UPDATE', [
        graveyard.id,
        packIdOf(held!),
      ]);
    };
    await lock();
    const job = await begin('redrive');
    await jobs.acquire(job.id, ME);
    const first = await jobs.runBatch(job.id, ME, ALL);
    expect(first).toMatchObject({ isNewPass: true, count: 2, job: { state: 'running', pass: 2, done: 2 } });
    await other.write('ROLLBACK');
    expect((await jobs.runBatch(job.id, ME, ALL)).job).toMatchObject({ state: 'done', done: 3, examined: 3 });

    await bury(origin, numbered(1));
    await store.at(START + 10 * MINUTE).unleased.redrive(graveyard.id, Buffer.alloc(16), 500);
    const [again] = await bury(origin, numbered(1));
    await other.write('START TRANSACTION');
    await other.read('SELECT 1 FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? AND pack_id = ? FOR UPDATE', [
      graveyard.id,
      packIdOf(again!),
    ]);
    expect(await run('redrive')).toMatchObject({ state: 'done', done: 0, skipped: 1, examined: 1 });
    await other.end();
    expect(await idsIn(graveyard)).toEqual(hex([again!]));
  });
});

test('open jobs never exceed their limit, however many begin at the same moment', async () => {
  const own = await openStore();
  const other = await openStore({ on: own.url });
  const queue = await createQueue(own);
  const creators = [own, other].map(({ database }) => new JobRepository(database));
  const wish = { kind: 'purge', queue, target: null, filter: {}, patterns: [] } as const;
  const create = (jobsOf: JobRepository): Promise<JobEntity> =>
    jobsOf.create({ ...wish, messagesPerSecond: null, maxMessages: null });
  for (let open = 1; open < LIMITS.openJobs; open += 1) await create(creators[0]!);
  const outcomes = await Promise.allSettled(Array.from({ length: 8 }, (_, index) => create(creators[index % 2]!)));
  const refusals = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason as RowmqError] : []));
  expect(refusals.map(({ code }) => code)).toEqual(Array.from({ length: 7 }, () => 'overloaded'));
  expect((await creators[0]!.idle(1000)).length).toBe(LIMITS.openJobs);
  // The last one that there is room for is not refused because of itself.
  await creators[0]!.cancel((await creators[0]!.idle(1))[0]!);
  expect(await create(new JobRepository(losingAnswers(own.database)))).toMatchObject({ state: 'running' });
  await other.close();
  await own.close();
});

describe('one worker at a time', () => {
  test('has a job, until it commits nothing for a quarter of a minute', async () => {
    await bury(origin, numbered(4));
    const job = await begin('redrive');
    const taken = await Promise.all(['one', 'two', 'three'].map((worker) => jobs.acquire(job.id, worker)));
    expect(taken.filter(Boolean)).toHaveLength(1);
    const first = ['one', 'two', 'three'][taken.indexOf(true)]!;
    expect(await jobs.idle(100)).not.toContainEqual(job.id);
    store.at(START + 10 * MINUTE + 10_000);
    await jobs.runBatch(job.id, first, { rows: 500, most: 1 });
    store.at(START + 10 * MINUTE + 24_000);
    expect(await jobs.acquire(job.id, ME)).toBe(false);
    store.at(START + 10 * MINUTE + 25_000);
    expect(await jobs.idle(100)).toContainEqual(job.id);
    expect(await jobs.acquire(job.id, ME)).toBe(true);
    // The first one was only slow, and must not work any more.
    await expect(jobs.runBatch(job.id, first, ALL)).rejects.toThrow(JobLost);
    expect((await jobs.runBatch(job.id, ME, ALL)).job).toMatchObject({ state: 'done', done: 4, examined: 4 });
  });

  test('loses a job in the middle of a batch, which then changes nothing', async () => {
    const ids = await bury(origin, numbered(4));
    const job = await begin('redrive');
    await jobs.acquire(job.id, ME);
    // The batch has read the job when the other one takes it.
    let read = 0;
    const slow = new JobRepository(
      new Proxy(store.database, {
        get: (database, name, self) => {
          const value: unknown = Reflect.get(database, name, self);
          if (name !== 'read' || typeof value !== 'function')
            return typeof value === 'function' ? value.bind(database) : value;
          return async (sql: string, values?: unknown[]): Promise<Row[]> => {
            if (sql.startsWith('SELECT 1 FROM queue') && (read += 1) === 1)
              await store.database.write("UPDATE job SET worker = 'other', step = step WHERE id = ?", [job.id]);
            return (value as (sql: string, values?: unknown[]) => Promise<Row[]>).call(database, sql, values);
          };
        },
      }),
    );
    await expect(slow.runBatch(job.id, ME, ALL)).rejects.toThrow(JobLost);
    expect(await idsIn(graveyard)).toEqual(hex(ids));
    expect(await jobs.get(job.id)).toMatchObject({ done: 0, state: 'running' });
  });

  test('stops when the job is cancelled', async () => {
    const ids = await bury(origin, numbered(4));
    const job = await begin('redrive');
    await jobs.acquire(job.id, ME);
    await jobs.runBatch(job.id, ME, { rows: 500, most: 1 });
    expect(await jobs.cancel(job.id)).toMatchObject({ state: 'cancelled', done: 1, worker: null });
    await expect(jobs.runBatch(job.id, ME, ALL)).rejects.toThrow(JobLost);
    expect(await jobs.acquire(job.id, 'other')).toBe(false);
    expect(await idsIn(graveyard)).toEqual(hex(ids.slice(1)));
    expect(await jobs.cancel(job.id)).toMatchObject({ state: 'cancelled', done: 1 });
  });

  test('tries again after a failure, but not for ever, and not if the queue is gone', async () => {
    const job = await begin('redrive');
    for (let failures = 1; failures < 20; failures += 1) {
      store.at(START + (10 + failures) * MINUTE);
      await jobs.acquire(job.id, ME);
      await jobs.failed(job.id, ME, new Error(`failure ${failures}`));
      expect(await jobs.get(job.id)).toMatchObject({ state: 'running', failures, error: `failure ${failures}` });
    }
    store.at(START + 100 * MINUTE);
    await jobs.acquire(job.id, ME);
    await jobs.failed(job.id, ME, new Error('the last'));
    expect(await jobs.get(job.id)).toMatchObject({ state: 'failed', error: 'the last' });

    const other = await begin('drop');
    await jobs.acquire(other.id, ME);
    await store.queues.put(origin.name, { deadLetterQueue: null, maxReceives: null });
    await store.queues.delete(graveyard.name);
    const gone = await jobs.runBatch(other.id, ME, ALL).catch((error: unknown) => error as Error);
    expect(gone).toMatchObject({ code: 'queue-not-found' });
    await jobs.failed(other.id, ME, gone as Error);
    expect(await jobs.get(other.id)).toMatchObject({ state: 'failed', queue: graveyard.name });
  });
});

test('a drop settles what its filter selects and no consumer holds, and no replay brings it back', async () => {
  const ids = await bury(origin, [...numbered(3), ...numbered(3, { headers: Buffer.from('{"kind":"x"}') })]);
  const [leased] = await store
    .at(START + 9 * MINUTE)
    .messages.dequeue(graveyard, { maxMessages: 1, leaseSeconds: 3600 });
  expect(leased?.messageId).toEqual(ids[0]);
  expect(await run('drop', { filter: { body: '0' } })).toMatchObject({ examined: 5, done: 1, skipped: 0 });
  expect(await run('drop', { filter: { header: 'kind=x' }, maxMessages: 1 })).toMatchObject({ done: 1 });
  expect(await idsIn(graveyard)).toEqual(hex([ids[0]!, ids[1]!, ids[2]!, ids[5]!]));
  const withdrawn = await store.database.read<{ queueId: number; members: number }>(
    'SELECT queue_id AS queueId, members FROM withdrawn WHERE queue_id = ?',
    [origin.id],
  );
  expect(withdrawn).toEqual([{ queueId: origin.id, members: 0b11000 }]);
  expect(await store.messages.ack(graveyard.id, [leased!])).toEqual([null]);
});

test('a purge settles all that is there in whatever state, and leaves what comes later', async () => {
  await bury(origin, numbered(40));
  const now = START + 10 * MINUTE;
  await store.at(now).messages.enqueue(graveyard.name, [message({ delaySeconds: 600 }), ...numbered(3)]);
  await store.messages.dequeue(graveyard, { maxMessages: 20, leaseSeconds: 600 });
  const job = await begin('purge', {}, now + 1);
  const [later] = await store.at(now + 1000).messages.enqueue(graveyard.name, [message()]);
  const moved = await bury(origin, numbered(1), now + 1000);
  store.at(now + 5 * MINUTE);
  expect(await carryOut(job, { rows: 1, most: Infinity })).toMatchObject({
    total: 44,
    examined: 44,
    done: 44,
    skipped: 0,
  });
  expect(await idsIn(graveyard)).toEqual(hex([later!, ...moved]));
});

test('a purge counts a batch once whose COMMIT gets no answer, with leased messages and others', async () => {
  await bury(origin, numbered(40));
  await store.at(START + 9 * MINUTE).messages.dequeue(graveyard, { maxMessages: 10, leaseSeconds: 6000 });
  const losing = new JobRepository(losingAnswers(store.database));
  expect(await carryOut(await begin('purge'), ALL, losing)).toMatchObject({ examined: 40, done: 40 });
  expect(await idsIn(graveyard)).toEqual([]);
});

describe('a filter', () => {
  /** Ids by what a browse finds and a drop of the same filter settles. */
  async function selected(filter: MessageFilter): Promise<string[]> {
    store.at(START + 4 * DAY);
    const found: string[] = [];
    let after: string | undefined;
    for (let pages = 0; pages < 50; pages += 1) {
      const page = await store.browse.browse(graveyard.id, 'ready', 2, after, filter);
      found.push(...page.deliveries.map(({ messageId }) => messageId.toString('hex')));
      if (page.nextAfter === null) break;
      after = page.nextAfter;
    }
    await store.database.write('CREATE TABLE before_job SELECT * FROM delivery WHERE queue_id = ?', [graveyard.id]);
    const target = await createQueue(store, { messageTtlSeconds: 864_000 });
    await carryOut(await begin('redrive', { filter, target }, START + 4 * DAY));
    const moved = await idsIn(target);
    expect(found.toSorted()).toEqual(moved);
    // They come back as they were, for the next filter.
    await store.database.write('DELETE FROM delivery WHERE queue_id IN (?)', [[graveyard.id, target.id]]);
    await store.database.write('INSERT INTO delivery SELECT * FROM before_job');
    await store.database.write('DROP TABLE before_job');
    return moved;
  }

  test('selects by source, reason, header, body and time, in a browse as in a job', async () => {
    const second = await createOrigin();
    const headers = (value: object): Buffer => Buffer.from(JSON.stringify(value));
    const [a, b, c] = await bury(origin, [
      { body: Buffer.from('grüne Äpfel'), headers: headers({ kind: 'fruit' }) },
      { body: Buffer.from('red apples'), headers: headers({ kind: 'fruit', 'a=b': 'c' }) },
      { body: Buffer.from([0xff, 0x00, 0x61]), headers: headers({ kind: 'stone' }) },
    ]);
    const [d] = await bury(second, [{ body: Buffer.from('red pears') }], START + DAY);
    const [native] = await store
      .at(START + DAY)
      .messages.enqueue(graveyard.name, [message({ body: Buffer.from('red') })]);
    const leased = await store.at(START + 2 * DAY).messages.dequeue(graveyard, { maxMessages: 1, leaseSeconds: 60 });
    expect(leased.map(({ messageId }) => messageId)).toEqual([a]);
    await store.messages.nack(graveyard.id, leased, { delaySeconds: 0, reason: 'no such customer' });
    const time = (ms: number): string => new Date(ms).toISOString();

    const cases: [MessageFilter, Buffer[]][] = [
      [{}, [a!, b!, c!, d!, native!]],
      [{ source: origin.name }, [a!, b!, c!]],
      [{ source: graveyard.name }, [native!]],
      [{ source: origin.name, body: 'red' }, [b!]],
      [{ reason: 'such' }, [a!]],
      [{ reason: 'max-receives' }, [a!, b!, c!, d!]],
      [{ reason: 'Such' }, []],
      [{ header: 'kind' }, [a!, b!, c!]],
      [{ header: 'kind=fruit' }, [a!, b!]],
      [{ header: 'a=b=c' }, [b!]],
      [{ header: 'fruit' }, []],
      [{ body: 'Äpfel' }, [a!]],
      [{ body: 'red' }, [b!, d!, native!]],
      [{ enqueuedFrom: time(START + DAY) }, [d!, native!]],
      [{ enqueuedTo: time(START + DAY) }, [a!, b!, c!]],
      [{ movedFrom: time(START + DAY) }, [d!]],
      [{ movedFrom: time(START + 2 * MINUTE), movedTo: time(START + 2 * MINUTE + 1) }, [a!, b!, c!]],
      [{ movedTo: time(START + 2 * MINUTE) }, []],
    ];
    for (const [filter, ids] of cases) expect(await selected(filter), JSON.stringify(filter)).toEqual(hex(ids));
  });

  test('that finds little makes a browse look at a bounded number of messages, and say how far it looked', async () => {
    const count = 30;
    for (let packs = 0; packs < count; packs += 1)
      await store.at(START + packs).messages.enqueue(graveyard.name, numbered(32));
    store.at(START + MINUTE);
    let examined = 0;
    let reads = 0;
    const counting = Object.create(store.database) as Database;
    counting.read = async (sql, values) => {
      if (sql.includes('FROM pack')) reads += 1;
      return store.database.read(sql, values);
    };
    const browse = new BrowseRepository(counting);
    const page = await browse.browse(graveyard.id, 'ready', 20, undefined, { body: '31' });
    examined += page.examined;
    expect(page.deliveries.map(({ messageId }) => indexInPack(messageId))).toEqual(Array(20).fill(31));
    expect(examined).toBe(20 * 32);
    const rest = await browse.browse(graveyard.id, 'ready', 20, page.nextAfter!, { body: '31' });
    expect(rest).toMatchObject({ examined: 10 * 32, nextAfter: null });
    expect(rest.deliveries).toHaveLength(10);
    // No pack is read for what the delivery itself excludes.
    reads = 0;
    expect(await browse.browse(graveyard.id, 'ready', 20, undefined, { body: '31', reason: 'x' })).toEqual({
      deliveries: [],
      examined: count * 32,
      nextAfter: null,
    });
    expect(reads).toBe(0);
  });
});

test('a dead letter keeps its source, and when and why it moved, through several moves', async () => {
  const other = await createQueue(store, { messageTtlSeconds: 864_000 });
  const last = await createQueue(store, { messageTtlSeconds: 864_000 });
  const [id] = await store.at(START).messages.enqueue(origin.name, [message()]);
  const show = async () => {
    const [delivery] = await store.browse.deliveries(id!, [origin.id, graveyard.id, other.id, last.id]);
    return { queueId: delivery!.queueId, source: delivery!.sourceQueueId, moves: delivery!.moves };
  };
  expect(await show()).toEqual({ queueId: origin.id, source: null, moves: [] });

  await store.queues.put(origin.name, { maxReceives: 2 });
  const [first] = await store.messages.dequeue(origin, { maxMessages: 1, leaseSeconds: 10 });
  await store.messages.nack(origin.id, [first!], { delaySeconds: 0, reason: 'first' });
  const [second] = await store.messages.dequeue(origin, { maxMessages: 1, leaseSeconds: 10 });
  await store.messages.nack(origin.id, [second!], { delaySeconds: 0, reason: 'second' });
  expect(await deadLetterAll(store, origin, START + MINUTE)).toBe(1);
  const died = { from: origin.id, at: START + MINUTE, cause: 'max-receives', receives: 2, reason: 'second' };
  expect(await show()).toEqual({ queueId: graveyard.id, source: origin.id, moves: [died] });

  // A consumer of the dead-letter queue gives it back without a reason: the move keeps its own.
  const [held] = await store.messages.dequeue(graveyard, { maxMessages: 1, leaseSeconds: 10 });
  await store.messages.nack(graveyard.id, [held!], { delaySeconds: 0 });
  expect((await show()).moves).toEqual([died]);

  const redriven = { cause: 'redriven', reason: null };
  await carryOut(await begin('redrive', { target: other }, START + 10 * MINUTE));
  const toOther = { ...redriven, from: graveyard.id, at: START + 10 * MINUTE, receives: 1 };
  expect(await show()).toEqual({ queueId: other.id, source: origin.id, moves: [died, toOther] });
  for (const [minute, queue, target] of [
    [11, other, last],
    [12, last, other],
    [13, other, graveyard],
  ] as const)
    await carryOut(await begin('redrive', { queue, target }, START + minute * MINUTE));
  const after = await show();
  expect(after).toMatchObject({ queueId: graveyard.id, source: origin.id });
  // The first and the last three.
  expect(after.moves.map(({ at }) => (at - START) / MINUTE)).toEqual([1, 11, 12, 13]);
  expect(after.moves[0]).toEqual(died);
  await carryOut(await begin('redrive', {}, START + 14 * MINUTE));
  expect(await show()).toMatchObject({ queueId: origin.id, source: null });
  expect((await show()).moves.map(({ cause }) => cause)).toEqual(['max-receives', 'redriven', 'redriven', 'redriven']);
});

test('finished jobs are forgotten after their time, and others are not', async () => {
  await store.at(START + 50 * DAY).database.write('DELETE FROM job');
  const at = START + 100 * DAY;
  const old = await carryOut(await begin('redrive', {}, at));
  const running = await begin('redrive', {}, at);
  store.at(at + 5000);
  expect(await jobs.forget(6, 10)).toBe(0);
  expect(await jobs.forget(5, 10)).toBe(1);
  await expect(jobs.get(old.id)).rejects.toMatchObject({ code: 'job-not-found' });
  expect(await jobs.get(running.id)).toMatchObject({ state: 'running' });
  const { name: queue } = graveyard;
  expect((await jobs.list({ queue, limit: 10 })).jobs.map(({ id }) => id)).toEqual([running.id]);
});
