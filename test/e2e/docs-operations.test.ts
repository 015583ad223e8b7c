import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { migrateDatabase } from '@rowmq/store';
import { type Connection, createConnection, type RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { Api, useOwnBroker } from '../support/api.js';
import { blocksOf, readPage } from '../support/docs.js';
import { DAY, enqueueStamped, HOUR, settleAll, START } from '../support/partitions.js';
import { freePort, startBroker, startReaper } from '../support/processes.js';
import { createDatabase, isFirstKind, testServer } from '../support/servers.js';
import { createQueue, openStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/* Follows docs/operations.md: its commands, its SQL, its privileges and its alerts. */

const PAGE = 'docs/operations.md';
const root = fileURLToPath(new URL('../../', import.meta.url));
const run = promisify(execFile);
/** Far more time than an idle machine needs. */
const PATIENCE_MS = 60_000;

let admin: Connection;

beforeAll(async () => {
  admin = await createConnection({ uri: testServer().url, multipleStatements: true });
});
afterAll(() => admin.end());

interface Dashboard {
  panels: { targets?: { expr: string }[] }[];
}

interface ReaperReport {
  leader: unknown;
  duties: { duty: string; runs: { error: string | null }[] }[];
}

/** Waits until every duty has run at least once. */
async function everyDuty(api: Api): Promise<ReaperReport['duties']> {
  return eventually(
    'every duty has run',
    async () => {
      const { json } = await api.get<ReaperReport>('/v1/admin/reaper');
      return json.leader !== null && json.duties.length >= 12 && json.duties;
    },
    PATIENCE_MS,
  );
}

const errorsOf = (duties: ReaperReport['duties']): (string | null)[] =>
  duties.flatMap(({ runs }) => runs.map(({ error }) => error)).filter((error) => error !== null);

/** The block of a language that contains this text. */
async function blockWith(language: string, part: string): Promise<string> {
  const [found, ...others] = (await blocksOf(PAGE, language)).filter(({ text }) => text.includes(part));
  expect(others).toEqual([]);
  return (found as { text: string }).text;
}

describe('beside the MySQL you have', () => {
  const name = `rowmq_d_${randomBytes(6).toString('hex')}`;
  const PASSWORD = 'p@ss/w?r:d#100% é';
  let shell: ChildProcess | undefined;
  let output = '';

  /** The names and the password of this test, in place of the page's. */
  const adapted = (text: string): string => text.replaceAll('a-long-password', PASSWORD).replaceAll(/\browmq\b/g, name);

  afterAll(async () => {
    if (shell?.exitCode === null && shell.signalCode === null) process.kill(-(shell.pid as number), 'SIGKILL');
    await admin.query(`DROP DATABASE IF EXISTS ${name}; DROP USER IF EXISTS '${name}'@'%'`);
  });

  /**
   * Runs the page's block as a shell would, with a database of this server and a port that is
   * free.
   */
  function start(block: string, encoded: string, port: number): ChildProcess {
    const { host } = new URL(testServer().url);
    const script = block.replace(
      'mysql://rowmq:a-long-password@127.0.0.1:3306/rowmq',
      `mysql://${name}:${encoded}@${host}/${name}`,
    );
    expect(script).toContain(encoded);
    const inherited = Object.entries(process.env).filter(
      ([key]) => !key.startsWith('ROWMQ_') && key !== 'NODE_OPTIONS',
    );
    const child = spawn('bash', ['-euc', script], {
      cwd: root,
      env: { ...Object.fromEntries(inherited), ROWMQ_PORT: String(port) },
      stdio: ['ignore', 'pipe', 'pipe'],
      // A process group of its own, as a terminal gives it.
      detached: true,
    });
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => (output += text));
    return child;
  }

  it('the commands set up and run RowMQ with any password, and a changed password causes the documented error', async () => {
    await admin.query(adapted(await blockWith('sql', 'CREATE USER')));
    const encode = (await blockWith('sh', 'encodeURIComponent')).replace("'p@ss/word?'", `'${PASSWORD}'`);
    const encoded = (await run('bash', ['-euc', encode])).stdout.trim();
    const port = await freePort();
    shell = start(await blockWith('sh', 'apps/migrate/dist/main.js up'), encoded, port);
    // When the output closes, every process that could write to it has ended.
    const ended = once(shell, 'close');
    const api = new Api(`http://127.0.0.1:${port}`);
    await eventually(
      'the broker is ready',
      async () => {
        if (shell?.exitCode !== null) throw new Error(`it ended:\n${output}`);
        return (await api.get('/health/ready').catch(() => undefined))?.status === 200;
      },
      PATIENCE_MS,
    );
    expect(errorsOf(await everyDuty(api))).toEqual([]);
    const queue = api.queue('orders');
    await queue.put();
    const [id] = await queue.enqueue('beside');
    expect(await queue.dequeueOne()).toMatchObject({ id, body: 'beside' });

    await admin.query(`ALTER USER '${name}'@'%' IDENTIFIED BY 'another-password'`);
    const [connections] = await admin.query<RowDataPacket[]>(
      'SELECT ID AS id FROM information_schema.PROCESSLIST WHERE USER = ?',
      [name],
    );
    for (const { id: connection } of connections)
      await admin.query(`KILL ${Number(connection)}`).catch(() => undefined);
    const fails = async (): Promise<boolean> => (await api.get('/v1/admin/queues/orders')).status === 500;
    await eventually('calls fail', fails, PATIENCE_MS);
    const lines = (): string[] => output.split('\n').filter((line) => line.includes('"process":"broker"'));
    await eventually('the broker’s log says why', () =>
      lines().some((line) => line.includes('ER_ACCESS_DENIED_ERROR')),
    );

    process.kill(-(shell.pid as number), 'SIGTERM');
    await ended;
  }, 300_000);
});

describe('the privileges that the page names', () => {
  it('suffice for the tables, for every change of partitions, for a broker and for every duty of a reaper', async () => {
    const privileges = /user needs `([A-Z, ]+)` on its own database/.exec(await readPage(PAGE))?.[1] as string;
    expect(await blockWith('sql', 'CREATE USER')).toContain(`GRANT ${privileges} ON rowmq.* TO 'rowmq'@'%'`);
    const database = await createDatabase();
    const user = `u_${database.name.slice(-12)}`;
    await admin.query(`CREATE USER '${user}'@'127.0.0.1' IDENTIFIED BY 'secret'`);
    await admin.query(`GRANT ${privileges} ON ${database.name}.* TO '${user}'@'127.0.0.1'`);
    const url = new URL(database.url);
    url.username = user;
    url.password = 'secret';
    const restricted = { ...database, url: url.href };
    await migrateDatabase(restricted.url);
    await changePartitions(restricted.url);

    const broker = await startBroker({ database: restricted });
    const reaper = await startReaper(restricted, { ROWMQ_REAPER_INTERVAL_SECONDS: '1' });
    try {
      expect(errorsOf(await everyDuty(new Api(broker.url)))).toEqual([]);
    } finally {
      await reaper.stop();
      await broker.stop();
    }
    await admin.query(`DROP USER '${user}'@'127.0.0.1'`);
    await database.drop();
  }, 300_000);

  /**
   * Splits with and without copying, rebuilds and drops partitions, as a reaper does over days:
   * REORGANIZE, EXCHANGE, REBUILD and DROP.
   */
  async function changePartitions(url: string): Promise<void> {
    const store = await openStore({ on: url });
    const queue = await createQueue(store, { messageTtlSeconds: 30 * 86_400 });
    const hourly = { widthMinutes: 60, advanceMinutes: 180 };
    expect(await store.at(START).partitions.createMissing({ ...hourly })).toBeGreaterThan(0);
    // More than a split copies.
    await enqueueStamped(store, queue, { at: START + DAY, count: 10_500 });
    expect(await store.at(START + 2 * DAY).partitions.createMissing({ ...hourly })).toBeGreaterThan(0);
    const [first] = await store.partitions.list();
    expect(await store.partitions.rebuild(first!)).toBe(true);
    await settleAll(store, queue, START + 2 * DAY);
    const dropped = await store.at(START + 2 * DAY + 3 * HOUR).partitions.dropSettled({ retentionSeconds: 3600 });
    expect(dropped.length).toBeGreaterThan(1);
    await store.close();
  }
});

describe('the SQL for 3 a.m.', () => {
  /** The page's statements for this kind of server, with a database of this test. */
  async function statements(database: string): Promise<string[]> {
    const kind = { mysql: 'MySQL', mariadb: 'MariaDB' }[testServer().kind];
    const blocks = (await blocksOf(PAGE, 'sql'))
      .map(({ text }) => text)
      .filter((text) => !text.includes('CREATE USER'));
    const [known, unknown] = [true, false].map((isKnown) =>
      blocks.filter((text) => /^-- (?:MySQL|MariaDB)/.test(text) === isKnown),
    );
    expect(unknown).toEqual([]);
    return (known as string[])
      .filter((text) => text.slice(0, text.indexOf('\n')).includes(kind))
      .map((text) => text.replaceAll(/\browmq\b/g, database));
  }

  it('finds the session that keeps the table open, and its KILL lets partitions be dropped', async () => {
    const store = await openStore();
    const database = new URL(store.url).pathname.slice(1);
    const queue = await createQueue(store);
    await store.at(START).partitions.createMissing({ widthMinutes: 60, advanceMinutes: 60 });
    await enqueueStamped(store, queue, { at: START, count: 10 });
    await settleAll(store, queue, START);
    const holder = await createConnection({ uri: store.url });
    holder.on('error', () => undefined);
    await holder.query('START TRANSACTION WITH CONSISTENT SNAPSHOT');
    await holder.query('SELECT id FROM pack LIMIT 1');
    const drop = () => store.at(START + DAY).partitions.dropSettled({ retentionSeconds: 60 });
    await expect(drop()).rejects.toThrow(/[Ll]ock wait timeout/);

    const answers = new Map<string, RowDataPacket[]>();
    for (const sql of await statements(database)) {
      // MariaDB's list of transactions may be a moment old.
      const [rows] = await admin.query<RowDataPacket[]>(`DO SLEEP(0.2); ${sql}`);
      answers.set(sql, rows);
    }
    const answerOf = (part: string): unknown[] => [...answers].find(([sql]) => sql.includes(part))?.[1].flat() ?? [];
    expect(answerOf(testServer().kind === 'mysql' ? 'metadata_locks' : 'p.HOST')).toContainEqual(
      expect.objectContaining({ id: holder.threadId }),
    );
    const history = answerOf('trx_rseg_history_len');
    expect(history).toContainEqual({ length: expect.any(Number) });
    expect(history).toContainEqual(expect.objectContaining({ id: holder.threadId }));
    const disk = answerOf('SHOW BINARY LOGS');
    expect(disk).toContainEqual(expect.objectContaining({ Log_name: expect.stringContaining('binlog') }));
    for (const table of ['pack', 'delivery'])
      expect(disk).toContainEqual(expect.objectContaining({ TABLE_NAME: table, mib: expect.any(Number) }));
    expect(answerOf('OPTIMIZE TABLE')).toContainEqual(expect.objectContaining({ Msg_type: 'status', Msg_text: 'OK' }));
    expect(answers.size).toBe(5);

    await admin.query(`KILL ${holder.threadId}`);
    await eventually('partitions can be dropped', () => drop().then(({ length }) => length > 0));
    await store.close();
  });
});

interface Rule {
  alert: string;
  expr: string;
  for: string;
  labels: { severity: string };
  annotations: { summary: string };
}

// The names of metrics, labels and paths do not depend on the kind of server.
describe.runIf(isFirstKind())('names in the pages', () => {
  const shared = useOwnBroker();

  describe('docs/alerts.yml', () => {
    const rules = async (): Promise<Rule[]> => {
      const { groups } = parse(await readFile(`${root}docs/alerts.yml`, 'utf8')) as { groups: { rules: Rule[] }[] };
      return groups.flatMap((group) => group.rules);
    };

    it('has rules that each have a unique name, a delay, a severity and a summary', async () => {
      const all = await rules();
      expect(all.length).toBeGreaterThan(5);
      expect(new Set(all.map(({ alert }) => alert)).size).toBe(all.length);
      for (const rule of all) {
        expect(rule).toMatchObject({ alert: expect.stringMatching(/^Rowmq[A-Z]\w+$/), expr: expect.any(String) });
        expect(rule.for).toMatch(/^\d+[mh]$/);
        expect(rule.labels.severity).toMatch(/^(?:critical|warning)$/);
        expect(rule.annotations.summary).toMatch(/\w/);
      }
    });

    it('names metrics, labels and values that a broker exports', async () => {
      const reaper = await startReaper(shared.broker.database);
      await everyDuty(shared.api);
      await reaper.stop();
      const dead = shared.api.queue('orders-dead');
      await dead.put();
      await dead.enqueue('a');
      const { receipt } = await dead.dequeueOne();
      await dead.nack([receipt]);
      await dead.dequeueOne();
      const orders = shared.api.queue('orders');
      await orders.put({ deadLetterQueue: 'orders-dead' });
      await orders.enqueue('b');
      await orders.request('nack', { receipts: [(await orders.dequeueOne()).receipt], deadLetter: true });
      expect((await shared.api.post('/v1/queues/nowhere/messages/dequeue')).status).toBe(404);
      const samples = (await shared.api.get('/metrics')).text.split('\n').filter((line) => !line.startsWith('#'));
      for (const { alert, expr, annotations } of await rules()) {
        const byLabels = [...expr.matchAll(/\b(?:by|on) \(([^)]*)\)/g)].flatMap(([, names]) =>
          (names ?? '').split(', '),
        );
        const told = [...annotations.summary.matchAll(/\$labels\.(\w+)/g)].map(([, label]) => label as string);
        const selectors = selectorsOf(expr).filter(({ metric }) => metric !== 'up');
        for (const { metric, matchers } of selectors) {
          const own = samples.filter((line) => line.startsWith(`${metric}{`) || line.startsWith(`${metric} `));
          expect(own, `${alert}: ${metric} is not exported`).not.toEqual([]);
          for (const { label, operator, value } of matchers) {
            const wanted = operator === '=' ? `${label}="${value}"` : `${label}="`;
            expect(
              own.some((line) => line.includes(wanted)),
              `${alert}: ${metric} without ${wanted}`,
            ).toBe(true);
          }
          // Prometheus adds the instance.
          for (const label of byLabels.filter((one) => one !== 'instance'))
            expect(
              own.every((line) => line.includes(`${label}="`)),
              `${alert}: ${metric} without ${label}`,
            ).toBe(true);
        }
        if (selectors.length > 0) for (const label of told) expect(byLabels, alert).toContain(label);
      }
    }, 180_000);

    it('on the dashboard in docs/grafana exist, with the labels that it uses', async () => {
      const { text } = await shared.api.get('/metrics');
      const declared = new Set([...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name as string));
      const dashboard = JSON.parse(await readFile(`${root}docs/grafana/rowmq.json`, 'utf8')) as Dashboard;
      const exprs = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
      expect(exprs.length).toBeGreaterThan(20);
      const used = new Set<string>();
      for (const expr of exprs) {
        const plain = expr.replaceAll('[$__rate_interval]', '[5m]');
        for (const { metric, matchers } of selectorsOf(plain)) {
          const base = metric.replace(/_(?:bucket|sum|count)$/, '');
          expect(declared.has(metric) || declared.has(base), `${metric} is not exported`).toBe(true);
          used.add(base);
          const own = text.split('\n').filter((line) => line.startsWith(`${metric}{`));
          for (const { label, value } of matchers.filter((one) => one.label !== 'job')) {
            const values = value.split('|').map((one) => (/^\w[\w-]*$/.test(one) ? `${label}="${one}"` : `${label}="`));
            // A counter of events that have not happened yet has no samples.
            if (own.length > 0)
              expect(
                own.some((line) => values.some((one) => line.includes(one))),
                `${metric} without ${label}`,
              ).toBe(true);
          }
        }
      }
      // The dashboard shows what the rules are about.
      for (const { alert, expr } of await rules())
        for (const { metric } of selectorsOf(expr).filter((one) => one.metric.startsWith('rowmq_queue_oldest')))
          expect(used.has(metric), `${alert}: ${metric} is not on the dashboard`).toBe(true);
    });

    /** Every metric in an expression, with the labels that it requires. */
    function selectorsOf(expr: string) {
      const bare = expr.replaceAll(/\b(?:by|on) \([^)]*\)/g, '').replaceAll(/\[\w+\]/g, '');
      const found = bare.matchAll(/\b(?!(?:unless|and|or)\b)([a-z]\w*)\b(?!\s*\()(?:\{([^}]*)\})?(?![^{]*\})/g);
      return [...found].map(([, metric, inside = '']) => ({
        metric: metric as string,
        matchers: [...inside.matchAll(/(\w+)(=~|!~|!=|=)"([^"]*)"/g)].map(([, label, operator, value]) => ({
          label: label as string,
          operator: operator as string,
          value: value as string,
        })),
      }));
    }
  });
});
