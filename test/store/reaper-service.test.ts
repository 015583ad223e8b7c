import { Logger } from '@nestjs/common';
import { SchedulerRegistry } from '@nestjs/schedule';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import type { Duty, Round } from '../../apps/reaper/src/duties/duty.js';
import { ReaperService } from '../../apps/reaper/src/reaper.service.js';
import { PeerRepository } from '@rowmq/store';
import { openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

Logger.overrideLogger(false);

const OFTEN = 0.05;
const NEVER = 4_102_444_800_000;
const HEARTBEAT_MS = 10_000;

let store: TestStore;
const started: ReaperService[] = [];

beforeEach(async () => {
  store = await openStore();
  return async () => {
    vi.useRealTimers();
    await Promise.all(started.splice(0).map((service) => service.beforeApplicationShutdown().catch(() => undefined)));
    await store.close();
  };
});

/** A duty that counts its runs. */
class Counting implements Duty {
  readonly everySeconds = OFTEN;
  runs = 0;
  constructor(
    readonly name = 'counting',
    private readonly work: (round: Round) => Promise<number> = async () => 1,
  ) {}
  async run(round: Round): Promise<number> {
    this.runs += 1;
    return this.work(round);
  }
}

async function start(...duties: Duty[]): Promise<ReaperService> {
  return startWith(OFTEN, duties);
}

async function startWith(intervalSeconds: number, duties: Duty[]): Promise<ReaperService> {
  const service = new ReaperService(store.reaper, new SchedulerRegistry(), duties, { intervalSeconds });
  started.push(service);
  await service.onApplicationBootstrap();
  return service;
}

/** Ends the lease, as if its holder had vanished. */
async function lapse(): Promise<void> {
  await store.database.write('UPDATE reaper_lease SET expires_at = 0');
}

/**
 * Gives the lease to another holder, in one statement, so that no reaper can renew it in between.
 */
async function usurp(): Promise<void> {
  await store.database.write(`UPDATE reaper_lease SET holder = 'somebody else', expires_at = ${NEVER}`);
}

/**
 * Waits until each running reaper has asked for the lease a few times more, with this outcome. No
 * reaper is then in a round that began before.
 */
async function asked(outcome: 'refused' | 'failed'): Promise<void> {
  const asking = vi.spyOn(store.reaper, 'acquireLease');
  const times = (reaper: string): number =>
    asking.mock.settledResults.filter(
      ({ type, value }, call) =>
        asking.mock.calls[call]![0] === reaper && (outcome === 'failed' ? type === 'rejected' : value === false),
    ).length;
  await eventually(`each asks for the lease and that is ${outcome}`, () => started.every(({ id }) => times(id) >= 3));
  asking.mockRestore();
}

async function stop(service: ReaperService): Promise<void> {
  started.splice(started.indexOf(service), 1);
  await service.beforeApplicationShutdown();
}

describe('reapers', () => {
  test('work one at a time, and another takes over when the working one stops or vanishes', async () => {
    const duties = [new Counting(), new Counting(), new Counting()];
    const services: ReaperService[] = [];
    for (const duty of duties) services.push(await start(duty));
    await eventually('the first works', () => duties[0]!.runs >= 5);
    expect(duties.map(({ runs }) => runs).slice(1)).toEqual([0, 0]);
    expect(await store.reaper.leader()).toMatchObject({ holder: services[0]!.id });

    await stop(services[0]!);
    const ran = duties[0]!.runs;
    await eventually('another works', () => duties[1]!.runs + duties[2]!.runs >= 3, 20_000);
    expect(duties[0]!.runs).toBe(ran);
    const next = duties[1]!.runs > 0 ? 1 : 2;
    expect(duties[3 - next]!.runs).toBe(0);

    await usurp();
    await asked('refused');
    const before = duties[1]!.runs + duties[2]!.runs;
    await asked('refused');
    expect(duties[1]!.runs + duties[2]!.runs).toBe(before);
    await lapse();
    await eventually('one of the two works again', () => duties[1]!.runs + duties[2]!.runs > before);
  });

  test('let brokers go first while one of them reports that the database is slow, except in urgent duties', async () => {
    const self = { id: 'a-broker', url: 'http://127.0.0.1:1', token: 'secret' };
    const peers = new PeerRepository(store.database);
    await peers.heartbeat(self, 2);
    const [urgent, patient] = [Object.assign(new Counting('urgent'), { isUrgent: true as const }), new Counting()];
    await start(urgent, patient);
    await eventually('some rounds have passed', () => urgent.runs >= 5);
    expect(patient.runs).toBe(0);
    await peers.heartbeat(self, 0);
    await eventually('it works again', () => patient.runs >= 2);
    await peers.heartbeat(self, 1);
    await eventually('it yields again', async () => {
      const [before, until] = [patient.runs, urgent.runs + 5];
      await eventually('some rounds have passed', () => urgent.runs >= until);
      return patient.runs === before;
    });
    // The word of a broker that is gone does not count.
    await store.database.write('UPDATE broker SET heartbeat_at = heartbeat_at - 11000');
    const ran = patient.runs;
    await eventually('it works again', () => patient.runs > ran);
  });

  test('keep the lease between rounds longer than it lasts, and a standby asks for it only in its own rounds', async () => {
    // Heartbeats come when the test advances the clock. All other timers are real.
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const [working, standingBy] = [new Counting(), new Counting()];
    const holder = await startWith(3600, [working]);
    await startWith(3600, [standingBy]);
    await eventually('the round is over', () => working.runs === 1);
    const lease = async (): Promise<number> => (await store.reaper.leader())?.expiresAt ?? 0;
    const before = await lease();
    vi.advanceTimersByTime(HEARTBEAT_MS);
    await eventually('it is renewed', async () => (await lease()) > before);
    expect(await store.reaper.leader()).toMatchObject({ holder: holder.id });
    await stop(holder);
    const asking = vi.spyOn(store.reaper, 'acquireLease');
    vi.advanceTimersByTime(2 * HEARTBEAT_MS);
    expect(asking).not.toHaveBeenCalled();
    expect(await store.reaper.leader()).toBeNull();
    expect([working.runs, standingBy.runs]).toEqual([1, 0]);
    asking.mockRestore();
  });

  test('that lose the lease during a round do not start the next duty', async () => {
    const second = new Counting('second');
    let loses = true;
    const first = new Counting('first', async () => {
      if (!loses) return 0;
      loses = false;
      await usurp();
      return 1;
    });
    await start(first, second);
    await eventually('its run is recorded', async () => (await store.reaper.lastRuns('first', 1)).length === 1);
    await asked('refused');
    expect(second.runs).toBe(0);
    await lapse();
    await eventually('it works again', () => second.runs > 0);
  });

  test('record a failed duty, back off from it longer and longer, and run the other duties meanwhile', async () => {
    const fine = new Counting('fine');
    /** The runs of the other duty by each run. A busy machine adds time in between, but no runs. */
    const rounds: number[] = [];
    const failing = new Counting('failing', async () => {
      rounds.push(fine.runs);
      throw new Error('the table is busy');
    });
    await start(failing, fine);
    await eventually('the other was done often', () => fine.runs >= 20);
    expect(failing.runs).toBeGreaterThan(1);
    expect(failing.runs).toBeLessThan(10);
    const runs = await store.reaper.lastRuns('failing', 100);
    expect(new Set(runs.map(({ error }) => error))).toEqual(new Set(['the table is busy']));
    const [first, ...later] = rounds.slice(1).map((round, index) => round - rounds[index]!);
    expect(Math.max(...later)).toBeGreaterThan(first!);
    expect((await store.reaper.lastRuns('fine', 1))[0]).toMatchObject({ count: 1, error: null });
  });

  test('that are stopped end the current duty through its signal, record it and release the lease', async () => {
    const patient = new Counting('patient', async ({ signal }) => {
      await new Promise<void>((resolve) => {
        signal.addEventListener('abort', () => resolve());
      });
      return 7;
    });
    const after = new Counting('after');
    const starting = start(patient, after);
    await eventually('it works', () => patient.runs === 1);
    const [service] = started;
    await service!.beforeApplicationShutdown();
    await starting;
    expect(after.runs).toBe(0);
    expect(await store.reaper.lastRuns('patient', 10)).toMatchObject([{ count: 7, error: null, reaper: service!.id }]);
    expect(await store.reaper.leader()).toBeNull();
  });

  test('whose database is away for a moment continue with a later round', async () => {
    const duty = new Counting();
    await start(duty);
    await store.database.write('RENAME TABLE reaper_lease TO away');
    await asked('failed');
    const { runs } = duty;
    await asked('failed');
    expect(duty.runs).toBe(runs);
    await store.database.write('RENAME TABLE away TO reaper_lease');
    await eventually('it works again', () => duty.runs > runs + 2);
  });
});
