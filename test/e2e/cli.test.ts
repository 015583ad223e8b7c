import type { LeasedMessage, QueueAnswer } from '@rowmq/contract';
import { chmod, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newQueueName, useBroker } from '../support/api.js';
import { rowmq, startRowmq } from '../support/cli.js';
import type { Ended } from '../support/commands.js';
import { eventually } from '../support/wait.js';

/* `rowmq` as scripts use it, against a broker. */

/** Each command is a process, which takes seconds on a busy machine. */
const COMMANDS_MS = 180_000;

const shared = useBroker();

/** Runs a command against the broker. */
const run = async (args: string, input?: string | Uint8Array): Promise<Ended> =>
  rowmq(args.split(' '), { env: { ROWMQ_URL: shared.broker.url }, ...(input !== undefined && { input }) });

/** Runs a command that must succeed, and returns what it printed. */
async function succeed(args: string, input?: string | Uint8Array): Promise<string> {
  const { code, stdout, stderr } = await run(args, input);
  expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
  return stdout;
}

const json = async <T>(args: string, input?: string): Promise<T> =>
  JSON.parse(await succeed(`${args} --json`, input)) as T;

const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');

describe('queue', { timeout: COMMANDS_MS }, () => {
  it('creates, shows, changes, pauses, resumes and deletes a queue', async () => {
    const [name, dead] = [newQueueName(), newQueueName()];
    await succeed(`queue create ${dead}`);
    const created = await json<QueueAnswer>(
      `queue create ${name} --lease-seconds 2m --max-receives 3 --dead-letter-queue ${dead}`,
    );
    expect(created).toMatchObject({ name, leaseSeconds: 120, maxReceives: 3, deadLetterQueue: dead });
    expect(await succeed(`queue show ${name}`)).toMatch(/leaseSeconds +120 \(2 min\)/);
    expect(await json(`queue set ${name} --max-depth 10 --delay-seconds 5`)).toMatchObject({
      maxDepth: 10,
      delaySeconds: 5,
    });
    expect(await json(`queue set ${name} --max-depth none`)).toMatchObject({ maxDepth: null, delaySeconds: 5 });
    expect(await succeed(`queue pause ${name} --side both`)).toBe(`${name}: consumers paused, producers paused.\n`);
    expect(await json(`queue resume ${name}`)).toEqual({ name, paused: false, producersPaused: false });
    const listed = await json<QueueAnswer[]>(`queue list ${name}`);
    expect(listed.map((queue) => queue.name)).toEqual([name]);
    expect(await succeed(`queue list`)).toMatch(new RegExp(`^QUEUE +READY[^]*^${name} +0`, 'm'));
    expect(await json(`queue delete ${name} --yes`)).toEqual({ deleted: name });
    expect(await run(`queue show ${name}`)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('does not exist'),
    });
  });

  it('creates no queue twice, and none when a setting was misspelt', async () => {
    const name = newQueueName();
    expect(await run(`queue set ${name} --lease-seconds 60`)).toMatchObject({ code: 1, stdout: '' });
    await succeed(`queue create ${name} --lease-seconds 60`);
    expect(await run(`queue create ${name}`)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('exists already'),
    });
    expect(await json(`queue create ${name} --if-missing --lease-seconds 70`)).toMatchObject({ leaseSeconds: 60 });
    expect(await run(`queue set ${name} --lease-seconds 0`)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--lease-seconds'),
    });
  });

  it('that two create at once is told to one of them only, with its settings', async () => {
    const name = newQueueName();
    const outcomes = await Promise.all(
      [61, 62, 63].map(async (seconds) => ({
        seconds,
        ...(await run(`queue create ${name} --lease-seconds ${seconds}`)),
      })),
    );
    const created = outcomes.filter(({ code }) => code === 0);
    expect(created).toHaveLength(1);
    expect(await json(`queue show ${name}`)).toMatchObject({ leaseSeconds: created[0]?.seconds });
    for (const { code, stderr } of outcomes)
      if (code !== 0) expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('exists already') });
  });

  it('deletes and purges only with --yes in a script', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('kept');
    for (const command of [`queue purge ${queue.name}`, `queue delete ${queue.name} --force`]) {
      const { code, stderr } = await run(command);
      expect({ command, code }).toEqual({ command, code: 2 });
      expect(stderr).toContain('--yes');
    }
    expect((await queue.get()).stats.ready).toBe(1);
    expect(await run(`queue delete ${queue.name} --yes`)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('1'),
    });
    expect(await json(`queue purge ${queue.name} --yes`)).toMatchObject({ kind: 'purge', state: 'done', done: 1 });
    await succeed(`queue delete ${queue.name} --yes`);
  });
});

describe('messages', { timeout: COMMANDS_MS }, () => {
  it('go in by an argument and by stdin, and come out with headers, receipt and body', async () => {
    const { name } = await shared.newQueue();
    const sent = await json<{ id: string }>(`send ${name} hello --header event=created --priority 9`);
    await succeed(`send ${name} --group g`, 'from stdin\n');
    await succeed(`send ${name}`, new Uint8Array([0, 255, 27]));
    expect(await succeed(`peek ${name}`)).toMatch(/^MESSAGE +ENQUEUED[^]*hello[^]*from stdin\\n[^]*0x00ff1b/);
    const received = lines(await succeed(`receive ${name} --max 3 --json`)).map(
      (line) => JSON.parse(line) as LeasedMessage,
    );
    expect(received[0]).toMatchObject({ id: sent.id, body: 'hello', headers: { event: 'created' }, priority: 9 });
    expect(received.map(({ body }) => body).toSorted()).toEqual(['AP8b', 'from stdin\n', 'hello']);
    const receipts = received.map(({ receipt }) => receipt);
    expect(await succeed(`ack ${name} ${receipts[0]}`)).toBe('1 of 1 message acked.\n');
    expect(await json(`ack ${name} -`, receipts.slice(1).join('\n'))).toEqual({ done: receipts.slice(1), failed: [] });
    const again = await run(`ack ${name} ${receipts[0]}`);
    expect(again).toMatchObject({ code: 1, stdout: expect.stringContaining('delivery-not-found') });
    expect(await run(`receive ${name}`)).toMatchObject({ code: 4, stdout: '' });
  });

  it('come back after a nack, with the reason, and a release does not count', async () => {
    const { name } = await shared.newQueue();
    await succeed(`send ${name} again`);
    const receive = async (): Promise<LeasedMessage> => json<LeasedMessage>(`receive ${name} --wait 20`);
    await succeed(`nack ${name} ${(await receive()).receipt} --reason broken`);
    expect(await succeed(`peek ${name} --full`)).toMatch(/failed +broken/);
    const second = await receive();
    expect(second.receiveCount).toBe(2);
    await succeed(`extend ${name} ${second.receipt} --lease 1h`);
    expect(await succeed(`peek ${name} --state leased`)).toContain('rowmq (');
    await succeed(`release ${name} ${second.receipt}`);
    expect((await receive()).receiveCount).toBe(2);
  });

  it('are acked by receive --ack once they are printed', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('one', 'two');
    expect(await succeed(`receive ${queue.name} --max 2 --ack --body`)).toBe('one\ntwo\n');
    expect((await queue.get()).stats).toMatchObject({ ready: 0, leased: 0 });
  });

  it('are sent from NDJSON in the order of the lines, with what each line says', async () => {
    const queue = await shared.newQueue();
    const input = Array.from({ length: 250 }, (_, index) =>
      JSON.stringify(index === 0 ? { body: { order: 17 }, priority: 9 } : { body: `message ${index}` }),
    );
    const told = await json<{ sent: number }>(`send ${queue.name} --ndjson --header from=cli`, input.join('\n\n'));
    expect(told).toMatchObject({ sent: 250, duplicates: 0 });
    const seen = lines(await succeed(`peek ${queue.name} --limit 300 --json`)).map(
      (line) => JSON.parse(line) as LeasedMessage,
    );
    expect(seen).toHaveLength(250);
    expect(seen[0]).toMatchObject({ body: '{"order":17}', priority: 9, headers: { from: 'cli' } });
    expect(seen.slice(1).map(({ body }) => body)).toEqual(input.slice(1).map((_, index) => `message ${index + 1}`));
  });

  it('before a bad line are stored, and the command says where to go on', async () => {
    const queue = await shared.newQueue();
    const good = Array.from({ length: 200 }, () => '{"body":"x"}');
    const { code, stderr } = await run(`send ${queue.name} --ndjson`, [...good, '{"bodi":"x"}'].join('\n'));
    expect(code).toBe(2);
    expect(stderr).toMatch(/Line 201 is no message/);
    expect(stderr).toMatch(/100 messages were stored. Go on with --from-line 101\./);
    expect((await queue.get()).stats.ready).toBe(100);
    const asJson = await run(`send ${queue.name} --ndjson --json`, [...good, '[]'].join('\n'));
    expect(JSON.parse(asJson.stderr)).toMatchObject({
      error: { code: 'failed', message: expect.stringMatching(/^Line 201 is no JSON.*Go on with --from-line 101\.$/) },
    });
    expect((await queue.get()).stats.ready).toBe(200);
    await succeed(`send ${queue.name} --ndjson --from-line 101`, good.join('\n'));
    expect((await queue.get()).stats.ready).toBe(300);
  });

  it('are sent from plain lines', async () => {
    const queue = await shared.newQueue();
    expect(await succeed(`send ${queue.name} --lines`, 'a\nb\n')).toMatch(/2 messages sent/);
    expect((await queue.browse('ready')).map(({ body }) => body)).toEqual(['a', 'b']);
  });

  it('that are no text are sent as their bytes', async () => {
    const queue = await shared.newQueue();
    const latin = Buffer.from('Müller', 'latin1');
    await succeed(`send ${queue.name} --lines`, Buffer.concat([latin, Buffer.from('\nb\n')]));
    expect((await queue.browse('ready')).map(({ body, bodyEncoding }) => [body, bodyEncoding])).toEqual([
      [latin.toString('base64'), 'base64'],
      ['b', 'utf8'],
    ]);
  });
});

describe('stats', { timeout: COMMANDS_MS }, () => {
  it('watches as a stream of JSON until SIGINT, which is no failure', async () => {
    const queue = await shared.newQueue();
    const { child, ended } = startRowmq(['stats', queue.name, '--watch', '--interval', '0.2', '--json'], {
      ROWMQ_URL: shared.broker.url,
    });
    let seen = '';
    child.stdout.on('data', (chunk: Buffer) => (seen += chunk.toString()));
    await eventually('two looks', () => lines(seen).length >= 2);
    await queue.enqueue('new');
    await eventually('a look that sees the message', () => seen.includes('"ready":1'));
    child.kill('SIGINT');
    const { code, stdout, stderr } = await ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const line of lines(stdout)) expect(JSON.parse(line)).toMatchObject({ queues: [{ name: queue.name }] });
  });

  it('ends without an error when the reader of its output is gone', async () => {
    const { child, ended } = startRowmq(['stats', '--watch', '--interval', '0.2', '--json'], {
      ROWMQ_URL: shared.broker.url,
    });
    ended.catch(() => undefined);
    child.stdout.once('data', () => child.stdout.destroy());
    const [code] = await new Promise<[number | null]>((resolve) => child.once('exit', (status) => resolve([status])));
    expect(code).toBe(0);
  });
});

describe('errors', { timeout: COMMANDS_MS }, () => {
  it('have exit code 2 for wrong usage, 3 without a broker, and are JSON with --json', async () => {
    expect(await run('queue lst')).toMatchObject({ code: 2, stderr: expect.stringContaining("unknown command 'lst'") });
    expect(await run('receive')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('missing required argument'),
    });
    expect(await run('stats --interval soon')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('no duration'),
    });
    const away = await rowmq(['queue', 'list', '--json'], { env: { ROWMQ_URL: 'http://127.0.0.1:1' } });
    expect(away).toMatchObject({ code: 3, stdout: '' });
    expect(JSON.parse(away.stderr)).toMatchObject({ error: { code: 'unreachable' } });
    const missing = await run('queue show no-such-queue --json');
    expect(missing.code).toBe(1);
    expect(JSON.parse(missing.stderr)).toMatchObject({ error: { code: 'queue-not-found' } });
  });
});

describe('a signal', { timeout: COMMANDS_MS }, () => {
  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)('that ends a command is told by its exit code: %s, %d', async (signal, code) => {
    const [queue, target] = [await shared.newQueue(), await shared.newQueue()];
    await queue.enqueue(...Array.from({ length: 100 }, String));
    const { child, ended } = startRowmq(['redrive', queue.name, '--to', target.name, '--per-second', '1'], {
      ROWMQ_URL: shared.broker.url,
    });
    await eventually(
      'its job',
      async () => {
        const answer = await fetch(`${shared.broker.url}/v1/admin/jobs?queue=${queue.name}`);
        return ((await answer.json()) as { jobs: unknown[] }).jobs.length > 0;
      },
      60_000,
    );
    child.kill(signal);
    expect(await ended).toMatchObject({ code, stdout: '' });
  });
});

describe('profiles', { timeout: COMMANDS_MS }, () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'rowmq-profiles-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('name a broker, unless other users can read the file', async () => {
    const file = join(folder, 'config.json');
    await writeFile(file, JSON.stringify({ profiles: { here: { url: shared.broker.url, key: 'not-needed' } } }), {
      mode: 0o600,
    });
    const list = async (...args: string[]): Promise<Ended> =>
      rowmq(['queue', 'list', ...args], { env: { ROWMQ_CONFIG: file } });
    expect(await list('--profile', 'here')).toMatchObject({ code: 0, stderr: '' });
    expect(await list('--profile', 'there')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('It has here.'),
    });
    await chmod(file, 0o640);
    expect(await list('--profile', 'here')).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringContaining('chmod 600'),
    });
    expect((await stat(file)).mode & 0o777).toBe(0o640);
  });
});
