import 'reflect-metadata';
import { Injectable, type ModuleMetadata } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import { type PutQueueRequest, type PutScheduleRequest, RowmqError } from '@rowmq/contract';
import { BrokerClient } from '../broker-client.js';
import type { Message } from '../consumer/message.js';
import { BrokerUnreachableError } from '../http/broker-unreachable.error.js';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import { RowmqTestingModule } from '../testing/rowmq-testing.module.js';
import { Consumer, OnBatch, OnMessage, Scheduled } from './decorators.js';
import { RowmqModule } from './rowmq.module.js';

const connection = RowmqTestingModule.forRoot();
const reports = RowmqModule.registerQueue({ name: 'reports' });
const HOUR = 3_600_000;

const handled: string[] = [];

@Consumer('reports')
class Reports {
  @OnMessage()
  onDemand(payload: unknown): void {
    handled.push(`on demand ${JSON.stringify(payload)}`);
  }

  @Scheduled({ name: 'nightly', cron: '30 2 * * *', timeZone: 'Europe/Berlin', payload: { report: 'daily' } })
  nightly(payload: { report: string }, message: Message): void {
    handled.push(`${payload.report} of ${message.headers['rowmq-tick']}`);
  }

  @Scheduled({ name: 'hourly', everySeconds: 3600, priority: 9 })
  hourly(payload: unknown): void {
    handled.push(`hourly ${JSON.stringify(payload)}`);
  }
}

async function boot(metadata: ModuleMetadata) {
  const app = await Test.createTestingModule({ ...metadata, imports: metadata.imports ?? [] }).compile();
  app.useLogger(false);
  await app.init();
  return app;
}

async function faultOf(metadata: ModuleMetadata): Promise<string> {
  try {
    await (await boot(metadata)).close();
  } catch (error) {
    return (error as Error).message;
  }
  return 'it starts';
}

beforeEach(() => {
  handled.length = 0;
});
afterEach(() => {
  vi.useRealTimers();
});

describe('a method with @Scheduled', () => {
  it('runs on each tick, over a daylight-saving change, and leaves other messages to @OnMessage', async () => {
    vi.useFakeTimers({ now: Date.parse('2026-03-28T22:59:00Z') });
    const app = await boot({ imports: [connection, reports], providers: [Reports] });
    const broker = app.get(InMemoryBroker);
    await broker.enqueue('reports', { messages: [{ body: '"now"' }] });
    await vi.advanceTimersByTimeAsync(3 * HOUR);
    expect(handled.toSorted()).toEqual(
      ['hourly null', 'hourly null', 'hourly null', 'on demand "now"', 'daily of 2026-03-29T01:00:00.000Z'].toSorted(),
    );
    expect(await broker.getSchedule('nightly')).toMatchObject({
      queue: 'reports',
      timeZone: 'Europe/Berlin',
      nextRunAt: '2026-03-30T00:30:00.000Z',
      lastRun: { tick: '2026-03-29T01:00:00.000Z' },
    });
    const closed = app.close();
    await vi.advanceTimersByTimeAsync(60_000);
    await closed;
  });

  it('is registered after its queue, if the broker comes up after the application', async () => {
    class LateBroker extends InMemoryBroker {
      tries = 0;
      readonly #queues = new Set<string>();

      override async createQueue(queue: string, settings?: PutQueueRequest) {
        this.#fail();
        await super.createQueue(queue, settings);
        this.#queues.add(queue);
      }

      override async putSchedule(schedule: string, request: PutScheduleRequest) {
        this.#fail();
        if (!this.#queues.has('reports')) throw new RowmqError('queue-not-found', 'no reports');
        return super.putSchedule(schedule, request);
      }

      #fail(): void {
        this.tries += 1;
        if (this.tries === 1) throw new BrokerUnreachableError('away', 'http://nowhere', 'not-sent');
      }
    }
    const created = RowmqModule.registerQueue({ name: 'reports', create: true });
    const broker = new LateBroker();
    const app = await Test.createTestingModule({ imports: [connection, created], providers: [Reports] })
      .overrideProvider(InMemoryBroker)
      .useValue(broker)
      .compile();
    app.useLogger(false);
    await app.init();
    const names = async () => (await broker.listSchedules({})).schedules.map(({ name }) => name);
    await expect.poll(names).toEqual(['hourly', 'nightly']);
    await app.close();
  });

  it('updates its schedule at boot, and the next tick stays if its times do', async () => {
    const broker = new InMemoryBroker();
    await broker.putSchedule('hourly', { everySeconds: 3600, queue: 'reports', message: { body: '1', priority: 1 } });
    const before = await broker.getSchedule('hourly');
    const app = await Test.createTestingModule({ imports: [connection, reports], providers: [Reports] })
      .overrideProvider(InMemoryBroker)
      .useValue(broker)
      .compile();
    await app.init();
    expect(await app.get(BrokerClient).getSchedule('hourly')).toMatchObject({
      nextRunAt: before.nextRunAt,
      message: { body: 'null', priority: 9 },
    });
    await app.close();
  });
});

describe('a fault at boot says what to do about a schedule', () => {
  it.each([
    [
      'with a pattern that is none',
      { name: 's', cron: 'daily' },
      /Wrong\.run defines schedule 's'.*cron: must have five/,
    ],
    [
      'with a time zone that is none',
      { name: 's', cron: '@daily', timeZone: 'CEST+1' },
      /timeZone: must be a time zone/,
    ],
    ['without times', { name: 's' }, /must be there, or everySeconds/],
    ['with a name that is none', { name: 'a b', everySeconds: 60 }, /schedule 'a b'.*must be 1 to 80/],
  ])('%s', async (_, options, fault) => {
    @Consumer('reports')
    class Wrong {
      @Scheduled(options)
      run(): void {}
    }
    expect(await faultOf({ imports: [connection, reports], providers: [Wrong] })).toMatch(fault);
  });

  it('in a class that is no consumer, or takes batches', async () => {
    @Injectable()
    class Idle {
      @Scheduled({ name: 's', everySeconds: 60 })
      run(): void {}
    }
    expect(await faultOf({ imports: [connection, reports], providers: [Idle] })).toMatch(
      /Idle\.run has @Scheduled, but Idle has no @Consumer/,
    );
    @Consumer('reports')
    class Batching {
      @OnBatch()
      all(): void {}
      @Scheduled({ name: 's', everySeconds: 60 })
      run(): void {}
    }
    expect(await faultOf({ imports: [connection, reports], providers: [Batching] })).toMatch(
      /Batching has @OnBatch\(\) and @Scheduled.*a queue and a consumer of its own/,
    );
  });

  it('whose name another one has, or whose payload does not fit the queue', async () => {
    @Consumer('reports')
    class Doubled {
      @Scheduled({ name: 's', everySeconds: 60 })
      one(): void {}
      @Scheduled({ name: 's', everySeconds: 61 })
      other(): void {}
    }
    expect(await faultOf({ imports: [connection, reports], providers: [Doubled] })).toMatch(
      /Doubled\.one and Doubled\.other both define schedule 's'/,
    );
    @Consumer('strict')
    class Unfit {
      @Scheduled({ name: 's', everySeconds: 60 })
      run(): void {}
    }
    const strict = RowmqModule.registerQueue({ name: 'strict', schema: z.object({ report: z.string() }) });
    expect(await faultOf({ imports: [connection, strict], providers: [Unfit] })).toMatch(
      /Unfit\.run defines schedule 's'.*does not fit the schema of queue 'strict'/,
    );
  });
});
