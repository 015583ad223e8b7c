import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Api, type QueueApi } from '../support/api.js';
import { DatabaseProxy } from '../support/database-proxy.js';
import { type Gateway, openGateway } from '../support/gateway.js';
import { type Broker, createMigratedDatabase, startBroker } from '../support/processes.js';
import { isFirstKind, type TestDatabase } from '../support/servers.js';
import { eventually } from '../support/wait.js';

/** Less than Prometheus waits, and than the database's own deadlines. */
const SCRAPE_MS = 9000;

let database: TestDatabase;
/** The way to the database: a gateway that breaks connections, and a proxy that lets them hang. */
let gateway: Gateway;
let proxy: DatabaseProxy;
/** The broker of all tests but one. Each of them uses a queue of its own. */
let shared: Broker;

beforeAll(async () => {
  database = await createMigratedDatabase();
  proxy = await DatabaseProxy.start(database.url);
  gateway = await openGateway(proxy.url);
  shared = await startBehind();
});
afterAll(async () => {
  await shared?.kill();
  await gateway.shut();
  await proxy.close();
  await database.drop();
});

async function startBehind(env: Record<string, string> = {}): Promise<Broker> {
  return startBroker({ database: { ...database, url: gateway.url }, env });
}

async function newQueue({ url }: Broker, name: string): Promise<{ api: Api; queue: QueueApi }> {
  const api = new Api(url);
  const queue = api.queue(name);
  await queue.put();
  return { api, queue };
}

interface Line {
  level: string;
  context: string;
  message: string;
}

/** The lines about the database in a broker's log. */
function lines(context = 'Database', broker = shared): Line[] {
  return broker
    .output()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Line)
    .filter((line) => line.context === context);
}

describe('a broker whose database goes away', () => {
  test('says at its start which server it uses, and how', () => {
    const { host, pathname } = new URL(gateway.url);
    expect(lines('StoreModule').map(({ message }) => message)).toEqual([
      expect.stringMatching(
        new RegExp(`^database ${host}${pathname}: (?:MySQL|MariaDB) \\d+\\.\\d+\\.\\d+, not encrypted$`),
      ),
    ]);
  });

  test('logs one line when the trouble begins and one when it ends, not one per request, and counts the failures', async () => {
    const { api, queue } = await newQueue(shared, 'gone');
    await queue.enqueue('before');
    expect(await api.metric('rowmq_database_up')).toBe(1);
    expect(lines()).toEqual([]);

    await gateway.shut();
    const outcomes = await Promise.all(
      Array.from({ length: 100 }, async () => queue.request('enqueue', { messages: [{ body: 'refused' }] })),
    );
    expect(outcomes.every(({ status }) => status === 503)).toBe(true);
    expect(lines()).toMatchObject([
      {
        level: 'warn',
        message: expect.stringMatching(
          /^Trouble with the database: .*(?:ECONNREFUSED|PROTOCOL_CONNECTION_LOST).* It is tried again\.$/,
        ),
      },
    ]);
    const { text } = await api.get('/metrics');
    expect(text).toMatch(/^rowmq_database_up 0$/m);
    expect(text).toMatch(/^rowmq_database_errors_total\{code="ECONNREFUSED"\} [1-9]\d*$/m);
    expect(text).not.toMatch(/^rowmq_(?:queue|reaper)_/m);
    expect(text).toMatch(/^rowmq_messages_total\{event="enqueued",queue="gone"\} 1$/m);

    await gateway.open();
    await eventually('it is over', async () => {
      await queue.request('enqueue', { messages: [{ body: 'after' }] });
      return lines().length > 1;
    });
    expect(lines()).toMatchObject([
      { level: 'warn' },
      {
        level: 'log',
        message: expect.stringMatching(
          /^The database answers again: the trouble lasted \d+\.\d s, in which \d+ tries failed\.$/,
        ),
      },
    ]);
    expect(await api.metric('rowmq_database_up')).toBe(1);
    await eventually('depths are there again', async () =>
      (await api.get('/metrics')).text.includes('rowmq_queue_deliveries{queue="gone",state="ready"}'),
    );
  });
});

describe('a broker whose database hangs', () => {
  test('still answers a scrape in time, with its own figures and that the database is down', async () => {
    await expectAnswersDuringHang(shared, 'hanging');
  });

  // Workers share their figures in the same way on every kind.
  test.runIf(isFirstKind())('with two workers does so as well', async () => {
    const broker = await startBehind({ ROWMQ_WORKERS: '2' });
    try {
      await expectAnswersDuringHang(broker, 'hanging-twice');
    } finally {
      await broker.kill();
    }
  });

  async function expectAnswersDuringHang(broker: Broker, name: string): Promise<void> {
    const { api, queue } = await newQueue(broker, name);
    const series = `{queue="${name}",state="ready"}`;
    const isWhole = async (): Promise<boolean> => {
      const { text } = await api.get('/metrics');
      return text.includes(`\nrowmq_queue_deliveries${series} 1\n`) && /^rowmq_database_up 1$/m.test(text);
    };
    await queue.enqueue('before');
    await eventually('all is there', isWhole);

    const before = lines('Database', broker).length;
    proxy.cut();
    const scrapes = await Promise.all(
      [0, 0, 0].map(async () => {
        const from = performance.now();
        const { status, text } = await api.get('/metrics');
        return { status, text, ms: performance.now() - from };
      }),
    );
    for (const { status, text, ms } of scrapes) {
      expect(status).toBe(200);
      expect(ms).toBeLessThan(SCRAPE_MS);
      expect(text).toMatch(/^rowmq_database_up 0$/m);
      expect(text).toContain(`\nrowmq_messages_total{event="enqueued",queue="${name}"} 1\n`);
      expect(text).not.toMatch(/^rowmq_(?:queue|reaper)_/m);
    }
    expect((await api.get('/health/ready')).status).toBe(503);
    expect(lines('Database', broker)[before]).toMatchObject({
      level: 'warn',
      message: expect.stringContaining('no answer within 2 s'),
    });

    proxy.heal();
    await eventually('all is there again', isWhole);
  }
});
