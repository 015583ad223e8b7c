import {
  messageIdIn,
  type Missed,
  nextTick,
  putScheduleRequest,
  SCHEDULE_HEADER,
  type ScheduleDefinition,
  TICK_HEADER,
  type Timing,
} from '@rowmq/contract';
import { BrowseRepository, ScheduleRepository, TickRepository } from '@rowmq/store';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { EnqueueTicks } from '../../apps/reaper/src/duties/enqueue-ticks.js';
import { TOPIC } from './steps.js';
import { timeLimitMs } from './time-limit.js';
import { World } from './world.js';

/*
 * Compares the store's schedules with a model of them, in random histories that cross
 * daylight-saving changes, with reapers that run at once and connections that break at COMMIT. The
 * times of ticks themselves have a specification of their own: ticks.test.ts of the contract.
 */

const RUNS = Math.ceil(Number(process.env['ROWMQ_MODEL_RUNS'] ?? 200) / 5);
const QUEUE = 'b';
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/** Hours before clocks change, in Berlin and in New York, in both directions. */
const STARTS = ['2026-03-28T22:10:00Z', '2026-10-24T22:10:00Z', '2026-03-08T05:10:00Z', '2026-11-01T04:10:00Z'];

type Step =
  | { does: 'put'; name: string; definition: ScheduleDefinition }
  | { does: 'delete'; name: string }
  | { does: 'wait'; ms: number }
  | { does: 'reap'; reapers: number; cut: 'before' | 'after' | null };

interface Modelled {
  definition: ScheduleDefinition;
  nextAt: number | null;
}

const name = fc.constantFrom('s', 't');
const times = fc.constantFrom(
  { cron: '30 2 * * *', timeZone: 'Europe/Berlin' },
  { cron: '*/15 * * * *', timeZone: 'Europe/Berlin' },
  { cron: '30 1,2 * * *', timeZone: 'America/New_York' },
  { cron: '0 3 * * *', timeZone: 'Asia/Tokyo' },
  { everySeconds: 20 },
  { everySeconds: 3600 },
);
const definition = fc
  .record({
    times,
    missed: fc.constantFrom<Missed>('skip', 'last', 'all'),
    enabled: fc.constantFrom(true, true, false),
    // Queues a, b and c get what is published.
    target: fc.constantFrom({ queue: QUEUE }, { topic: TOPIC.name }),
  })
  .map(({ times: of, target, ...rest }) =>
    putScheduleRequest.parse({ ...of, ...rest, ...target, message: { body: 'b', headers: { kind: 'y' } } }),
  );
const does = <const Verb extends string>(verb: Verb): fc.Arbitrary<Verb> => fc.constant(verb);
const STEPS: [weight: number, fc.Arbitrary<Step>][] = [
  [3, fc.record({ does: does('put'), name, definition })],
  [1, fc.record({ does: does('delete'), name })],
  [
    5,
    fc.record({
      does: does('wait'),
      ms: fc.constantFrom(1, 1000, 20_000, 59_999, 60_000, 60_001, 15 * MINUTE, HOUR, 3 * HOUR, 30 * HOUR),
    }),
  ],
  [
    5,
    fc.record({
      does: does('reap'),
      reapers: fc.constantFrom(1, 1, 2, 3),
      cut: fc.constantFrom(null, null, null, null, 'before' as const, 'after' as const),
    }),
  ],
];
const step = fc.oneof(...STEPS.map(([weight, arbitrary]) => ({ weight, arbitrary })));
/** With bias most histories would be short. */
const history = fc.noBias(
  fc.record({
    start: fc.constantFrom(...STARTS),
    first: definition,
    steps: fc.array(step, { minLength: 4, maxLength: 14, size: 'max' }),
  }),
);

let world: World;
beforeAll(async () => {
  world = await World.open();
});
afterAll(() => world.close());

it(
  `schedules enqueue each tick once, as the model says, in ${RUNS} random histories`,
  async () => {
    let enqueued = 0;
    const property = fc.asyncProperty(history, async ({ start, first, steps }) => {
      await world.reset({});
      await world.database.write('DELETE FROM schedule');
      await world.database.write('DELETE FROM deduplication');
      world.now = Date.parse(start);
      const model = new Map<string, Modelled>();
      const expected: string[] = [];
      for (const one of [{ does: 'put' as const, name: 's', definition: first }, ...steps])
        await take(one, model, expected);
      await take({ does: 'reap', reapers: 1, cut: null }, model, expected);
      enqueued += expected.length;
      expect(await ticks()).toEqual(expected.toSorted());
      for (const [of, { nextAt }] of model)
        expect((await new ScheduleRepository(world.database).get(of)).nextAt, `next tick of ${of}`).toBe(nextAt);
    });
    await fc.assert(property, { numRuns: RUNS });
    // Histories in which nothing happens would pass too.
    if (RUNS >= 40) expect(enqueued).toBeGreaterThan(RUNS / 4);
  },
  timeLimitMs(RUNS),
);

async function take(one: Step, model: Map<string, Modelled>, expected: string[]): Promise<void> {
  const schedules = new ScheduleRepository(world.database);
  switch (one.does) {
    case 'put': {
      await schedules.put(one.name, one.definition);
      const known = model.get(one.name);
      const keeps = known !== undefined && sameTimes(known.definition, one.definition);
      const next = one.definition.enabled ? nextTick(timingOf(one.definition), world.now) : null;
      model.set(one.name, { definition: one.definition, nextAt: keeps ? known.nextAt : next });
      return;
    }
    case 'delete':
      await schedules.delete(one.name).catch(() => undefined);
      model.delete(one.name);
      return;
    case 'wait':
      world.now += one.ms;
      return;
    case 'reap':
      await world.cutting(one.cut, async () => Promise.all(Array.from({ length: one.reapers }, reap)));
      // After a cut the server may still hold the locks, and one reaper skips what another holds.
      await reap();
      for (const [of, schedule] of model) expected.push(...due(schedule).map((tick) => `${of} ${tick}`));
  }
}

/** The ticks of a schedule that a run enqueues. Moves it on. */
function due(schedule: Modelled): number[] {
  const { definition: of, nextAt } = schedule;
  if (nextAt === null) return [];
  const all: number[] = [];
  let next: number | null = nextAt;
  for (; next !== null && next <= world.now; next = nextTick(timingOf(of), next)) all.push(next);
  schedule.nextAt = next;
  const inTime = all.filter((tick) => tick >= world.now - MINUTE);
  if (of.missed === 'all') return all.filter((tick) => tick >= world.now - 24 * HOUR);
  return of.missed === 'last' && inTime.length === 0 ? all.slice(-1) : inTime;
}

async function reap(): Promise<void> {
  await new EnqueueTicks(new TickRepository(world.database)).run({ signal: new AbortController().signal });
}

/** The ticks of all stored messages, also of those that have expired meanwhile. */
async function ticks(): Promise<string[]> {
  const packs = await world.database.read<{ id: Buffer; count: number }>('SELECT id, count FROM pack');
  const ids = packs.flatMap(({ id, count }) => Array.from({ length: count }, (_, index) => messageIdIn(id, index)));
  return (await new BrowseRepository(world.database).messages(ids))
    .map(({ headers }) => JSON.parse(String(headers)) as Record<string, string>)
    .map((headers) => `${headers[SCHEDULE_HEADER]} ${Date.parse(headers[TICK_HEADER]!)}`)
    .toSorted();
}

function timingOf({ cron, everySeconds, timeZone }: ScheduleDefinition): Timing {
  return { cron: cron ?? null, everySeconds: everySeconds ?? null, timeZone: timeZone ?? null };
}

function sameTimes(one: ScheduleDefinition, other: ScheduleDefinition): boolean {
  const keys = ['cron', 'everySeconds', 'timeZone', 'enabled'] as const;
  return keys.every((key) => one[key] === other[key]);
}
