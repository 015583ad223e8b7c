import { putScheduleRequest, type PutScheduleRequest, SCHEDULE_HEADER, TICK_HEADER } from '@rowmq/contract';
import { type Database, MessageRepository, type Queue, ScheduleRepository, TickRepository } from '@rowmq/store';
import { beforeEach, describe, expect, test } from 'vitest';
import { EnqueueTicks } from '../../apps/reaper/src/duties/enqueue-ticks.js';
import { losingAnswers } from '../support/lost-answer.js';
import { openSession } from '../support/partitions.js';
import { createQueue, numbered, openStore, SingleMessages, type TestStore } from '../support/store.js';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const T0 = Date.parse('2026-03-28T12:00:00Z');

let store: TestStore;
let queue: Queue;
let schedules: ScheduleRepository;

beforeEach(async () => {
  store = await openStore();
  queue = await createQueue(store);
  schedules = new ScheduleRepository(store.database);
  store.at(T0);
  return () => store.close();
});

async function put(name: string, request: Partial<PutScheduleRequest>): Promise<number | null> {
  const target = request.topic === undefined ? { queue: queue.name } : {};
  const definition = putScheduleRequest.parse({ ...target, message: { body: name }, ...request });
  return (await schedules.put(name, definition)).schedule.nextAt;
}

/** One run of a reaper's duty. */
async function reap(database = store.database): Promise<number> {
  const duty = new EnqueueTicks(new TickRepository(database));
  return (await duty.run({ signal: new AbortController().signal })).count;
}

/** The ticks whose messages the queue holds: `name time`, in order. Removes them. */
async function enqueued(of = queue): Promise<string[]> {
  // A broker that has just started overlooks nothing.
  const messages = new SingleMessages(new MessageRepository(store.database));
  const leased = await messages.dequeue(of, { maxMessages: 1000, leaseSeconds: 60 });
  await store.messages.ack(of.id, leased);
  return leased
    .map(({ headers }) => JSON.parse(String(headers)) as Record<string, string>)
    .map((headers) => `${headers[SCHEDULE_HEADER]} ${headers[TICK_HEADER]?.slice(5, 16)}`)
    .toSorted();
}

async function refusal(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => 'done',
    (error: unknown) => error,
  );
}

describe('a tick', () => {
  test('is enqueued when the database’s clock says so, once, and names its schedule and its instant', async () => {
    expect(await put('hourly', { cron: '0 * * * *', timeZone: 'Europe/Berlin' })).toBe(T0 + HOUR);
    expect(await reap()).toBe(0);
    store.at(T0 + HOUR - 1);
    expect(await reap()).toBe(0);
    store.at(T0 + HOUR);
    expect([await reap(), await reap()]).toEqual([1, 0]);
    const [message] = await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 60 });
    expect(String(message?.body)).toBe('hourly');
    expect(JSON.parse(String(message?.headers))).toEqual({
      [SCHEDULE_HEADER]: 'hourly',
      [TICK_HEADER]: '2026-03-28T13:00:00.000Z',
    });
    expect(await schedules.get('hourly')).toMatchObject({
      nextAt: T0 + 2 * HOUR,
      lastTickAt: T0 + HOUR,
      lastMessageId: message?.messageId,
    });
  });

  test('is right over both daylight-saving changes', async () => {
    await put('berlin', { cron: '30 2 * * *', timeZone: 'Europe/Berlin', missed: 'all' });
    await put('new-york', { cron: '30 2 * * *', timeZone: 'America/New_York', missed: 'all' });
    await put('tokyo', { cron: '30 2 * * *', timeZone: 'Asia/Tokyo', missed: 'all' });
    const seen: string[] = [];
    for (const day of [
      '2026-03-28',
      '2026-03-29',
      '2026-03-30',
      '2026-10-23',
      '2026-10-24',
      '2026-10-25',
      '2026-10-31',
      '2026-11-01',
    ]) {
      for (let hour = 0; hour < 24; hour += 6) {
        store.at(Math.max(T0, Date.parse(day) + hour * HOUR));
        await reap();
        seen.push(...(await enqueued()));
      }
    }
    const of = (name: string) => seen.filter((one) => one.startsWith(name)).map((one) => one.slice(name.length + 1));
    expect(of('berlin')).toEqual([
      '03-29T01:00',
      '03-30T00:30',
      '10-22T00:30',
      '10-23T00:30',
      '10-24T00:30',
      '10-25T00:30',
      '10-30T01:30',
      '10-31T01:30',
      '11-01T01:30',
    ]);
    expect(of('new-york')).toEqual(expect.arrayContaining(['03-29T06:30', '10-31T06:30', '11-01T07:30']));
    expect([...new Set(of('tokyo').map((one) => one.slice(-5)))]).toEqual(['17:30']);
  });

  test('is enqueued once by two reapers at once', async () => {
    const other = await openStore({ on: store.url });
    for (let one = 0; one < 12; one += 1) await put(`s${one}`, { everySeconds: 10, missed: 'all' });
    const expected: string[] = [];
    let count = 0;
    for (let step = 1; step <= 12; step += 1) {
      const now = T0 + step * 30 * SECOND;
      store.at(now);
      other.at(now);
      const counts = await Promise.all([reap(), reap(other.database), reap(), reap(other.database)]);
      // One may have skipped what the other had locked.
      counts.push(await reap());
      count += counts.reduce((sum, one) => sum + one, 0);
    }
    await other.close();
    for (let tick = T0 + 10 * SECOND; tick <= T0 + 360 * SECOND; tick += 10 * SECOND)
      for (let one = 0; one < 12; one += 1) expected.push(`s${one} ${new Date(tick).toISOString().slice(5, 16)}`);
    expect(await enqueued()).toEqual(expected.toSorted());
    expect(count).toBe(expected.length);
  });

  test('is enqueued by another reaper if one dies between the steps, and once if the answer to COMMIT is lost', async () => {
    await put('minutely', { cron: '* * * * *' });
    store.at(T0 + MINUTE);
    const dying = Object.create(store.database) as Database;
    dying.transaction = async (work) =>
      store.database.transaction((tx) => {
        const finish = (): Promise<never> => Promise.reject(new Error('killed'));
        return work(Object.assign(tx, { finish }));
      });
    await reap(dying);
    expect(await enqueued()).toEqual([]);
    store.at(T0 + MINUTE + 10 * SECOND);
    expect(await reap(losingAnswers(store.database))).toBe(0);
    expect(await enqueued()).toEqual(['minutely 03-28T12:01']);
    expect(await reap()).toBe(0);
  });

  test('is published once to every queue of a topic, by any number of reapers, and whatever subscribes later', async () => {
    const [wanted, ordered, late] = [
      await createQueue(store),
      await createQueue(store, { ordering: 'group' }),
      await createQueue(store),
    ];
    await store.topics.put('ticks');
    await store.topics.putSubscription('ticks', queue.name, { [SCHEDULE_HEADER]: ['never'] });
    for (const one of [wanted, ordered]) await store.topics.putSubscription('ticks', one.name, undefined);
    await put('s', { everySeconds: 10, missed: 'all', topic: 'ticks', message: { body: 'b', groupId: 'g' } });
    const other = await openStore({ on: store.url });
    for (const now of [T0 + 40 * SECOND, T0 + 80 * SECOND]) {
      store.at(now);
      other.at(now);
      await Promise.all([reap(), reap(other.database), reap(losingAnswers(store.database))]);
      await reap();
    }
    await other.close();
    await store.topics.putSubscription('ticks', late.name, undefined);
    // As if the schedule had been deleted and created again: a published tick is a duplicate.
    await store.database.write('UPDATE schedule SET next_at = ?, due_at = ?', [T0 + 80 * SECOND, T0 + 80 * SECOND]);
    expect(await reap()).toBe(1);
    const ticks = Array.from({ length: 8 }, (_, index) => new Date(T0 + (index + 1) * 10 * SECOND).toISOString());
    const bySecond = (leased: readonly { headers: Buffer | null }[]): string[] =>
      leased.map(({ headers }) => (JSON.parse(String(headers)) as Record<string, string>)[TICK_HEADER] ?? '');
    const take = (of: Queue) => store.messages.dequeue(of, { maxMessages: 100, leaseSeconds: 60 });
    expect(bySecond(await take(wanted)).toSorted((one, next) => one.localeCompare(next))).toEqual(ticks);
    const first = await take(ordered);
    await store.messages.ackInOrder(ordered.id, first);
    expect(bySecond([...first, ...(await take(ordered))])).toEqual(ticks);
    expect(await take(queue)).toEqual([]);
    expect(await take(late)).toEqual([]);
    const { lastMessageId, lastFailure } = await schedules.get('s');
    expect({ lastMessageId, lastFailure }).toEqual({ lastMessageId: expect.any(Buffer), lastFailure: null });
  });

  test('whose topic was deleted fails, and says so', async () => {
    expect(await refusal(put('s', { everySeconds: 60, topic: 'nowhere' }))).toMatchObject({ code: 'topic-not-found' });
    await store.topics.put('ticks');
    await put('s', { everySeconds: 60, topic: 'ticks' });
    await store.topics.delete('ticks');
    store.at(T0 + MINUTE);
    expect(await reap()).toBe(0);
    expect((await schedules.get('s')).lastFailure).toMatch(/Topic 'ticks' does not exist; create it/);
  });

  test('that a frozen reaper has locked holds up no other schedule', async () => {
    await put('stuck', { everySeconds: 60 });
    await put('free', { everySeconds: 60 });
    store.at(T0 + MINUTE);
    const frozen = await openSession(store);
    await frozen.write('START TRANSACTION');
    await frozen.read('SELECT 1 FROM schedule WHERE name = ? FOR UPDATE', ['stuck']);
    expect(await reap()).toBe(1);
    await frozen.end();
    expect(await reap()).toBe(1);
    expect(await enqueued()).toEqual(['free 03-28T12:01', 'stuck 03-28T12:01']);
  });
});

describe('missed ticks', () => {
  test.each([
    ['skip', []],
    ['last', ['s 03-28T15:00']],
    ['all', ['s 03-28T13:00', 's 03-28T14:00', 's 03-28T15:00']],
  ] as const)('after an outage are made up for: %s', async (missed, expected) => {
    await put('s', { cron: '0 * * * *', missed });
    store.at(T0 + 3 * HOUR + 30 * MINUTE);
    await reap();
    expect(await enqueued()).toEqual(expected);
    expect((await schedules.get('s')).nextAt).toBe(T0 + 4 * HOUR);
    expect(await reap()).toBe(0);
  });

  test('that were refused wait for room, and the schedule says why', async () => {
    await store.queues.put(queue.name, { maxDepth: 2 });
    await store.messages.enqueue(queue.name, numbered(1));
    await put('s', { everySeconds: 10, missed: 'all' });
    store.at(T0 + 30 * SECOND);
    expect(await reap()).toBe(1);
    expect(await schedules.get('s')).toMatchObject({
      nextAt: T0 + 20 * SECOND,
      lastFailure: expect.stringMatching(/holds 2 of at most 2 messages/) as string,
    });
    await store.queues.put(queue.name, { maxDepth: null });
    expect(await reap()).toBe(0);
    store.at(T0 + 40 * SECOND);
    expect(await reap()).toBe(3);
    expect(await schedules.get('s')).toMatchObject({ nextAt: T0 + 50 * SECOND, lastFailure: null });
  });

  test('whose queue was deleted fail without harm to others, and go on when it is back', async () => {
    const gone = await createQueue(store);
    await put('orphan', { everySeconds: 60, queue: gone.name });
    await put('other', { everySeconds: 60 });
    await store.queues.delete(gone.name);
    store.at(T0 + MINUTE);
    expect(await reap()).toBe(1);
    expect((await schedules.get('orphan')).lastFailure).toMatch(/does not exist; create it/);
    const { queue: back } = await store.queues.put(gone.name, {});
    store.at(T0 + MINUTE + 10 * SECOND);
    expect(await reap()).toBe(1);
    expect(await enqueued(back)).toEqual(['orphan 03-28T12:01']);
  });
});

describe('a schedule', () => {
  test('that is put again as it is keeps its tick, also one that is due, and so does one with another message', async () => {
    await put('s', { everySeconds: 60 });
    store.at(T0 + 90 * SECOND);
    expect(await put('s', { everySeconds: 60 })).toBe(T0 + MINUTE);
    expect(await put('s', { everySeconds: 60, message: { body: 'changed' } })).toBe(T0 + MINUTE);
    await reap();
    const [message] = await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 60 });
    expect(String(message?.body)).toBe('changed');
  });

  test('whose times change begins anew from now on, and one that is off has no tick', async () => {
    await put('s', { everySeconds: 60 });
    store.at(T0 + 90 * SECOND);
    expect(await put('s', { everySeconds: 600 })).toBe(T0 + 600 * SECOND);
    expect(await put('s', { everySeconds: 600, enabled: false })).toBeNull();
    store.at(T0 + HOUR);
    expect(await reap()).toBe(0);
    expect(await put('s', { everySeconds: 600 })).toBe(T0 + HOUR + 600 * SECOND);
    await schedules.delete('s');
    store.at(T0 + 2 * HOUR);
    expect(await reap()).toBe(0);
    expect(await refusal(schedules.get('s'))).toMatchObject({ code: 'schedule-not-found' });
    expect(await refusal(schedules.delete('s'))).toMatchObject({ code: 'schedule-not-found' });
  });

  test('is created once if several services put it at the same time', async () => {
    const made = await Promise.all(
      Array.from({ length: 8 }, async () =>
        schedules.put('s', putScheduleRequest.parse({ everySeconds: 60, queue: queue.name, message: { body: 'b' } })),
      ),
    );
    expect(made.filter(({ created }) => created)).toHaveLength(1);
    expect(await refusal(put('t', { everySeconds: 60, queue: 'nowhere' }))).toMatchObject({ code: 'queue-not-found' });
    expect((await schedules.list('', 10)).schedules.map(({ name }) => name)).toEqual(['s']);
  });
});
