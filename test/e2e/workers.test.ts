import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { identifyProcess, isRunning, type ProcessIdentity } from '@rowmq/mysql-server';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { request } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Api, newQueueName, type QueueApi } from '../support/api.js';
import { type AppProcess, type Broker, createMigratedDatabase, startApp, startBroker } from '../support/processes.js';
import type { TestDatabase } from '../support/servers.js';
import { eventually } from '../support/wait.js';
import { OneConnection, oneConnectionEach, workerNumbered, workersOf } from '../support/workers.js';

const WORKERS = { ROWMQ_WORKERS: '3' };
/** The fewest of several: each costs two seconds of CPU to start. */
const FEWEST = { ROWMQ_WORKERS: '2' };
const NO_POLL = new URL('../support/no-poll.mjs', import.meta.url).href;
/**
 * A worker restarts after a pause of up to two seconds. On a busy machine its start takes seconds.
 */
const RESTART_MS = 40_000;

let database: TestDatabase;
const started: AppProcess[] = [];

beforeAll(async () => {
  database = await createMigratedDatabase();
});
afterAll(async () => {
  await Promise.all(started.map((broker) => broker.kill()));
});

async function start(env: Record<string, string> = {}): Promise<Broker> {
  const broker = await startBroker({ database, env: { ...WORKERS, ...env } });
  started.push(broker);
  return broker;
}

async function newQueue(api: Api): Promise<QueueApi> {
  const queue = api.queue(newQueueName());
  await queue.put({ leaseSeconds: 5 });
  return queue;
}

/** Waits until a broker has its three workers, the given one not among them. */
async function replaced(broker: Broker, pid: number): Promise<number[]> {
  return eventually(
    'the worker is replaced',
    async () => {
      const workers = await workersOf(broker);
      const counts = broker.output().match(/is running again/g)?.length ?? 0;
      return counts > 0 && workers.length === 3 && !workers.includes(pid) && workers;
    },
    RESTART_MS,
  );
}

const killed = (broker: Broker): number => broker.output().match(/ended unexpectedly/g)?.length ?? 0;

describe('three workers', () => {
  let broker: Broker;
  let clients: OneConnection[];

  // Every start of three workers costs seconds of CPU. This broker does for all tests of a running
  // one, from the free port that it chooses to its stop. Its workers have no polls, so they hear of
  // messages by hints alone.
  beforeAll(async () => {
    const env = { ...WORKERS, ROWMQ_DATABASE_URL: database.url, ROWMQ_PORT: '0' };
    const app = await startApp('broker', env, { preload: NO_POLL });
    const url = /listening on (http:[^"\s]+)/.exec(app.output())?.[1] as string;
    broker = { ...app, url, database };
    started.push(broker);
    clients = await oneConnectionEach(broker);
    await eventually('the workers know each other', async () => (await clients[0]!.metric('rowmq_peers')) === 2);
  });
  afterAll(() => broker.stop());

  /** Consumers whose claims found their queue empty. */
  async function park({ name }: { name: string }, consumers: Api[]) {
    const api = new Api(broker.url);
    const claims = async () => api.metric('rowmq_batch_duration_seconds_count{verb="dequeue"}');
    const before = await claims();
    const waits = consumers.map(async (consumer) => consumer.queue(name).dequeue({ waitSeconds: 20 }));
    await eventually('its consumers wait', async () => (await api.metric('rowmq_waiting_consumers')) === waits.length);
    await eventually('the queue is empty', async () => (await claims()) > before);
    return waits;
  }

  test('listen on one free port', async () => {
    const urls = [...broker.output().matchAll(/listening on (http:[^"\s]+)/g)].map(([, url]) => url as string);
    expect(urls).toHaveLength(1);
    expect((await new Api(urls[0] as string).get('/health/ready')).status).toBe(200);
  });

  test('are three processes behind one port, and each names itself in the log', async () => {
    expect(await workersOf(broker)).toHaveLength(3);
    expect(new Set(await Promise.all(clients.map((client) => client.worker()))).size).toBe(3);
    for (const number of [1, 2, 3]) expect(broker.output()).toContain(`"process":"broker worker ${number}"`);
  });

  test('share the calls on one message', async () => {
    const [one, two, three] = clients as [OneConnection, OneConnection, OneConnection];
    const { name } = await newQueue(one);
    const [id] = await two.queue(name).enqueue('walk');
    const first = await three.queue(name).dequeueOne();
    expect(first).toMatchObject({ id, body: 'walk', receiveCount: 1 });
    expect(await one.queue(name).extend([first.receipt], 600)).toMatchObject({ failed: [] });
    expect(await two.queue(name).nack([first.receipt])).toEqual({ nacked: [first.receipt], failed: [] });
    const again = await one.queue(name).dequeueOne();
    expect(again).toMatchObject({ id, receiveCount: 2 });
    expect((await three.queue(name).requestAckOne(first.receipt)).status).toBe(409);
    expect((await three.queue(name).requestAckOne(again.receipt)).status).toBe(204);
    expect((await two.message(id as string)).deliveries).toEqual([]);
  });

  test('wake each other’s consumers', async () => {
    const [here, there] = clients as [OneConnection, OneConnection];
    const queues = await Promise.all(Array.from({ length: 12 }, async () => newQueue(here)));
    const consumers = queues.map(() => new OneConnection(broker));
    const pids = await Promise.all(consumers.map((consumer) => consumer.worker()));
    const producerOf = async (pid: number) => ((await here.worker()) === pid ? there : here);
    // One after the other: a slow machine needs longer to park them all than the first may wait.
    for (const [index, queue] of queues.entries()) {
      const [wait] = await park(queue, [consumers[index] as OneConnection]);
      const producer = await producerOf(pids[index] as number);
      await producer.queue(queue.name).enqueue('wake up');
      expect(await wait).toHaveLength(1);
    }
    await Promise.all(consumers.map((consumer) => consumer.close()));
  });

  test('distribute the messages of one producer among the consumers of all', async () => {
    const [producer, ...others] = clients as [OneConnection, OneConnection, OneConnection];
    const queue = await newQueue(producer);
    const near = new OneConnection(broker);
    const waits = await park(queue, [near, ...others]);
    await producer.queue(queue.name).enqueue('a', 'b', 'c');
    const bodies = (await Promise.all(waits)).map(([message]) => message?.body);
    expect(new Set(bodies)).toEqual(new Set(['a', 'b', 'c']));
    await near.close();
  });

  test('find a message whose delay began at another worker, and wake each other when it is nacked', async () => {
    const [here, there] = clients as [OneConnection, OneConnection];
    const queue = await newQueue(here);
    await here.queue(queue.name).enqueue({ body: 'later', delaySeconds: 1 });
    const delayed = await eventually('its delay ends', async () => (await there.queue(queue.name).dequeue())[0]);
    const [wait] = await park(queue, [here]);
    await there.queue(queue.name).nack([delayed.receipt]);
    expect(await wait).toMatchObject([{ id: delayed.id, receiveCount: 2 }]);
  });

  test('each answer with the metrics of all', async () => {
    const { name } = await newQueue(clients[0] as OneConnection);
    for (const [index, client] of clients.entries())
      await client.queue(name).enqueue(...Array.from({ length: index + 1 }, String));
    for (const client of clients) {
      expect(await client.metric(`rowmq_messages_total{event="enqueued",queue="${name}"}`)).toBe(6);
      // The count is the database's at its last read. It is not summed over the workers.
      await eventually(
        'it has counted them',
        async () => (await client.metric(`rowmq_queue_deliveries{queue="${name}",state="ready"}`)) === 6,
      );
      const { text } = await client.get('/metrics');
      expect(text.match(/^process_resident_memory_bytes\{worker="[123]"\} /gm)).toHaveLength(3);
      expect(text.match(/^rowmq_waiting_requests\{verb="ack"\} /gm)).toHaveLength(1);
      expect(text.match(/^rowmq_request_duration_seconds_count\{.*call="enqueue"/gm)).toHaveLength(1);
      expect(text.match(/^# TYPE rowmq_waiting_consumers gauge$/gm)).toHaveLength(1);
    }
    await clients[1]!.queue(name).api.delete(`/v1/admin/queues/${name}?force=true`);
    await eventually(
      'all forget a deleted queue',
      async () => !(await clients[2]!.get('/metrics')).text.includes(name),
    );
  });

  test('all drop the metrics of a queue that was deleted through another broker', async () => {
    const [here, there] = clients as [OneConnection, OneConnection];
    const { name } = await newQueue(here);
    await there.queue(name).enqueue('b');
    expect(await here.metric(`rowmq_messages_total{event="enqueued",queue="${name}"}`)).toBe(1);
    const other = await startBroker({ database });
    started.push(other);
    expect((await new Api(other.url).delete(`/v1/admin/queues/${name}?force=true`)).status).toBe(204);
    await other.stop();
    await eventually('they forget it', async () => !(await here.get('/metrics')).text.includes(`"${name}"`));
    for (const client of clients) expect((await client.get('/metrics')).text).not.toContain(`"${name}"`);
  });

  test('answer all waiting consumers when the broker is told to stop', async () => {
    const queue = await newQueue(new Api(broker.url));
    const answers = Promise.all(Array.from({ length: 30 }, async () => queue.dequeue({ waitSeconds: 20 })));
    await eventually('they wait', async () => (await queue.api.metric('rowmq_waiting_consumers')) === 30);
    await Promise.all(clients.map((client) => client.close()));
    const from = performance.now();
    await broker.stop();
    expect((await answers).flat()).toEqual([]);
    expect(performance.now() - from).toBeLessThan(15_000);
  });
});

describe('a worker', { timeout: 120_000 }, () => {
  let broker: Broker;
  beforeAll(async () => {
    broker = await start();
  });

  test('that is killed is replaced while the others continue, and no message is lost or doubled', async () => {
    const queue = await newQueue(new Api(broker.url));
    const stored = new Set<string>();
    const seen = new Map<string, Set<string>>();
    const acked: string[] = [];
    const maybeAcked = new Set<string>();
    let isOver = false;
    let isDrained = false;
    let isPaced = false;
    let sent = 0;
    const produce = async (client: OneConnection): Promise<void> => {
      while (!isOver) {
        const body = `message ${(sent += 1)}`;
        const answer = await client
          .queue(queue.name)
          .request('enqueue', { messages: [{ body }] })
          .catch(() => undefined);
        if (answer?.status === 201) stored.add(body);
        if (isPaced) await sleep(50);
      }
    };
    const consume = async (client: OneConnection): Promise<void> => {
      const mine = client.queue(queue.name);
      while (!isDrained) {
        for (const { id, body, receipt } of await mine.dequeue({ maxMessages: 5, waitSeconds: 1 }).catch(() => [])) {
          seen.set(body, (seen.get(body) ?? new Set()).add(id));
          // A message that is handed out after its ack would be here twice.
          const answer = await mine.requestAckOne(receipt).catch(() => undefined);
          if (answer?.status === 204) acked.push(body);
          else if (answer === undefined) maybeAcked.add(body);
        }
      }
    };
    const clients = Array.from({ length: 12 }, () => new OneConnection(broker));
    const producers = clients.slice(0, 6).map(produce);
    const consumers = clients.slice(6).map(consume);

    await eventually('the load runs', () => acked.length > 100);
    const victim = await workerNumbered(broker, 1);
    process.kill(victim as number, 'SIGKILL');
    await eventually('it is missed', () => killed(broker) === 1);
    const count = acked.length;
    await eventually('the others go on', () => acked.length > count + 30);
    // At full speed the load took the CPU that the new worker needs for its start: 40 s more.
    isPaced = true;
    await replaced(broker, victim as number);

    isOver = true;
    await Promise.all(producers);
    const settled = (): Set<string> => new Set([...acked, ...maybeAcked]);
    await eventually('everything is acked', () => [...stored].every((body) => settled().has(body)), 30_000);
    isDrained = true;
    await Promise.all(consumers);
    expect(acked).toHaveLength(new Set(acked).size);
    for (const ids of seen.values()) expect(ids.size).toBe(1);
    await Promise.all(clients.map((client) => client.close()));
  });

  test('that is killed again and again restarts after longer and longer pauses', async () => {
    const api = new Api(broker.url);
    // The test before was the first to kill it.
    for (let kills = 2; kills <= 3; kills += 1) {
      const pid = await eventually(
        'worker 1 runs',
        // A worker that is killed earlier counts as one that did not start.
        async () => {
          const starts = broker.output().match(/The worker 1 is running again/g)?.length;
          return starts === kills - 1 ? workerNumbered(broker, 1) : undefined;
        },
        RESTART_MS,
      );
      process.kill(pid, 'SIGKILL');
      await eventually('it is missed', () => killed(broker) === kills);
      expect((await api.get('/health/ready')).status).toBe(200);
    }
    // The broker logs the pause in a line after the worker's end. This line may arrive later.
    const pauses = await eventually('the third pause is logged', () => {
      const lines = [...broker.output().matchAll(/Starting the worker 1 again in ([\d.]+) s/g)];
      return lines.length >= 3 && lines.map(([, seconds]) => Number(seconds));
    });
    expect(pauses).toHaveLength(3);
    for (const [index, pause] of pauses.entries()) {
      expect(pause).toBeGreaterThanOrEqual(0.5 * 2 ** index);
      expect(pause).toBeLessThanOrEqual(2 ** index);
    }
    // While it waits to start it again.
    await broker.stop();
  });

  test('whose primary is killed answers its waiting consumers and ends by itself', async () => {
    const orphaning = await start(FEWEST);
    const queue = await newQueue(new Api(orphaning.url));
    const workers = await Promise.all((await workersOf(orphaning)).map((pid) => identifyProcess(pid)));
    const waits = Array.from({ length: 9 }, async () => queue.dequeue({ waitSeconds: 20 }));
    await eventually('they wait', async () => (await queue.api.metric('rowmq_waiting_consumers')) === 9);
    const gone = orphaning.kill();
    expect((await Promise.all(waits)).flat()).toEqual([]);
    await gone;
    await eventually('no worker is left', async () =>
      (await Promise.all(workers.map((worker) => isRunning(worker!)))).every((isAlive) => !isAlive),
    );
  });
});

describe('a broker of several workers that is told to stop', () => {
  /** Starts an enqueue at each worker. A lock in the database blocks them all until `letGo`. */
  async function holdUp(broker: Broker) {
    const clients = await oneConnectionEach(broker);
    const { name } = await newQueue(new Api(broker.url));
    const lock = await createConnection({ uri: database.url });
    await lock.query('START TRANSACTION');
    await lock.query('SELECT id FROM queue WHERE name = ? FOR UPDATE', [name]);
    const answers = Promise.allSettled(
      clients.map((client) => client.queue(name).request('enqueue', { messages: [{ body: 'x' }] })),
    );
    await eventually('they are under way', async () => {
      const [rows] = await lock.query<RowDataPacket[]>(
        "SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND INFO LIKE '%LOCK IN SHARE MODE)'",
      );
      return rows.length >= clients.length;
    });
    const letGo = async (): Promise<void> => {
      await lock.query('ROLLBACK');
      await lock.end();
    };
    const processes = await Promise.all([broker.pid, ...(await workersOf(broker))].map((pid) => identifyProcess(pid)));
    return { answers, letGo, processes: processes as ProcessIdentity[] };
  }

  async function expectGone(processes: readonly ProcessIdentity[]): Promise<void> {
    await eventually('all are gone', async () =>
      (await Promise.all(processes.map((found) => isRunning(found)))).every((isAlive) => !isAlive),
    );
  }

  test.each([
    ['the primary', (pids: number[]) => pids.slice(0, 1)],
    ['every one of its processes', (pids: number[]) => pids],
  ])('cuts off no request on a connection that was accepted, if the signal reaches %s', async (_, reached) => {
    const broker = await start(FEWEST);
    const queue = await newQueue(new Api(broker.url));
    const outcomes = new Map<unknown, number>();
    const producers = Array.from({ length: 40 }, async (__, index) => {
      // It gets 408 if a busy machine left the connection idle for a second.
      for (let outcome: unknown = 201; outcome === 201 || outcome === 408; await sleep(Math.random() * 20)) {
        outcome = await request(`${broker.url}${queue.messagesPath}`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ messages: [{ body: 'x' }] }),
          // Every second producer opens a connection for each request.
          reset: index % 2 === 0,
        }).then(
          async ({ statusCode, body }) => body.dump().then(() => statusCode),
          ({ code }: NodeJS.ErrnoException) => code,
        );
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      }
    });
    await eventually('the load runs', () => (outcomes.get(201) ?? 0) > 400);
    const pids = [broker.pid, ...(await workersOf(broker))];
    const processes = await Promise.all(pids.map((pid) => identifyProcess(pid)));
    for (const pid of reached(pids)) process.kill(pid, 'SIGINT');
    await Promise.all(producers);
    expect([...outcomes.keys()].filter((outcome) => outcome !== 408)).toEqual([201, 'ECONNREFUSED']);
    await expectGone(processes as ProcessIdentity[]);
    expect(broker.output()).not.toMatch(/could not stop|ended unexpectedly|"level":"error"/);
  });

  test('stops in order even if Ctrl-C reaches every one of its processes', async () => {
    const broker = await start(FEWEST);
    const { answers, letGo, processes } = await holdUp(broker);
    for (const { pid } of processes) process.kill(pid, 'SIGINT');
    // The primary may be quicker to tell a worker than the terminal.
    await eventually('all stop', () => broker.output().match(/stopping: SIG(INT|TERM)/g)?.length === 3);
    for (const { pid } of processes.slice(1)) process.kill(pid, 'SIGTERM');
    await letGo();
    for (const answer of await answers) expect(answer).toMatchObject({ status: 'fulfilled', value: { status: 201 } });
    await expectGone(processes);
    expect(broker.output()).not.toMatch(/could not stop|ended unexpectedly|"level":"error"/);
  });

  test('ends at once when it is told twice', async () => {
    const broker = await start(FEWEST);
    const { answers, letGo, processes } = await holdUp(broker);
    process.kill(broker.pid, 'SIGTERM');
    // The primary may be quicker to tell a worker than the terminal.
    await eventually('all stop', () => broker.output().match(/stopping: SIGTERM/g)?.length === 3);
    process.kill(broker.pid, 'SIGTERM');
    await expectGone(processes);
    for (const answer of await answers) expect(answer.status).toBe('rejected');
    await letGo();
  });
});

describe('a broker of several workers', () => {
  async function failureOf(starting: Promise<Broker>): Promise<string> {
    return starting.then(
      () => 'it started',
      (error: unknown) => (error as Error).message,
    );
  }

  test('does not start with invalid settings, and lists them once', async () => {
    const failed = await failureOf(start({ ROWMQ_WORKERS: '65', ROWMQ_PORT: 'x' }));
    expect(failed).toMatch(/ROWMQ_WORKERS must be a whole number from 1 to 64\n.*ROWMQ_PORT must be/);
    expect(failed.match(/ROWMQ_PORT/g)).toHaveLength(1);
  });

  test('ends, and says why, when its port is taken', async () => {
    const other = createServer().listen(0);
    await once(other, 'listening');
    const failed = await failureOf(start({ ROWMQ_PORT: String((other.address() as AddressInfo).port) }));
    other.close();
    expect(failed).toMatch(/\(exited\)[^]*Cannot listen: .*EADDRINUSE/);
    expect(failed.match(/Cannot listen/g)).toHaveLength(1);
  });
});
