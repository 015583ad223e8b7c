import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Api, type QueueApi } from '../support/api.js';
import { DatabaseProxy } from '../support/database-proxy.js';
import { type Gateway, openGateway } from '../support/gateway.js';
import { type Broker, createMigratedDatabase, startBroker } from '../support/processes.js';
import type { TestDatabase } from '../support/servers.js';
import { eventually } from '../support/wait.js';

/** Less than Prometheus waits, and than the database's own deadlines. */
const SCRAPE_MS = 6000;

let database: TestDatabase;
let broker: Broker | undefined;

beforeEach(async () => {
  database = await createMigratedDatabase();
});
afterEach(async () => {
  await broker?.kill();
  await database.drop();
});

async function startBehind(url: string, env: Record<string, string> = {}): Promise<{ api: Api; queue: QueueApi }> {
  broker = await startBroker({ database: { ...database, url }, env });
  const api = new Api(broker.url);
  const queue = api.queue('troubled');
  await queue.put();
  return { api, queue };
}

interface Line {
  level: string;
  context: string;
  message: string;
}

/** The lines about the database in the broker's log. */
function lines(context = 'Database'): Line[] {
  return (broker as Broker)
    .output()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Line)
    .filter((line) => line.context === context);
}

describe('a broker whose database goes away', () => {
  let gateway: Gateway;

  beforeEach(async () => {
    gateway = await openGateway(database.url);
  });
  afterEach(() => gateway.shut());

  test('says at its start which server it uses, and how', async () => {
    await startBehind(gateway.url);
    const { host, pathname } = new URL(gateway.url);
    expect(lines('StoreModule').map(({ message }) => message)).toEqual([
      expect.stringMatching(
        new RegExp(`^database ${host}${pathname}: (?:MySQL|MariaDB) \\d+\\.\\d+\\.\\d+, not encrypted$`),
      ),
    ]);
  });

  test('logs one line when the trouble begins and one when it ends, not one per request, and counts the failures', async () => {
    const { api, queue } = await startBehind(gateway.url);
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
    expect(text).toMatch(/^rowmq_messages_total\{event="enqueued",queue="troubled"\} 1$/m);

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
      (await api.get('/metrics')).text.includes('rowmq_queue_deliveries{queue="troubled",state="ready"}'),
    );
  });
});

describe('a broker whose database hangs', () => {
  let proxy: DatabaseProxy;

  beforeEach(async () => {
    proxy = await DatabaseProxy.start(database.url);
  });
  afterEach(() => proxy.close());

  test.each(['1', '2'])(
    'with %s workers still answers a scrape in time, with what it knows itself and that the database is down',
    async (workers) => {
      const { api, queue } = await startBehind(proxy.url, { ROWMQ_WORKERS: workers });
      await queue.enqueue('before');
      await eventually('all is there', async () => {
        const { text } = await api.get('/metrics');
        return (
          /^rowmq_queue_deliveries\{queue="troubled",state="ready"\} 1$/m.test(text) &&
          /^rowmq_database_up 1$/m.test(text)
        );
      });

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
        expect(text).toMatch(/^rowmq_messages_total\{event="enqueued",queue="troubled"\} 1$/m);
        expect(text).not.toMatch(/^rowmq_(?:queue|reaper)_/m);
      }
      expect((await api.get('/health/ready')).status).toBe(503);
      expect(lines()[0]).toMatchObject({ level: 'warn', message: expect.stringContaining('no answer within 2 s') });

      proxy.heal();
      await eventually('all is there again', async () => {
        const { text } = await api.get('/metrics');
        return (
          /^rowmq_queue_deliveries\{queue="troubled",state="ready"\} 1$/m.test(text) &&
          /^rowmq_database_up 1$/m.test(text)
        );
      });
    },
  );
});
