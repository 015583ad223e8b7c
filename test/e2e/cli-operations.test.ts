import type { JobAnswer, KeyAnswer, MessageAnswer, NewKeyAnswer, ScheduleAnswer, TopicAnswer } from '@rowmq/contract';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { newQueueName, type QueueApi, useOwnBroker } from '../support/api.js';
import { rowmq, startRowmq } from '../support/cli.js';
import type { Ended } from '../support/commands.js';
import { eventually } from '../support/wait.js';

/* The commands of operators. */

/** Each command is a process, which takes seconds on a busy machine. */
const COMMANDS_MS = 180_000;
const ADMIN = 'an-admin-key-of-the-tests';

const shared = useOwnBroker({});
const env = (): Record<string, string> => ({ ROWMQ_URL: shared.broker.url });

const run = async (args: string[], input?: string): Promise<Ended> =>
  rowmq(args, { env: env(), ...(input !== undefined && { input }) });

async function succeed(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(args);
  expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
  return stdout;
}

const json = async <T>(...args: string[]): Promise<T> => JSON.parse(await succeed(...args, '--json')) as T;
const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');

/** A queue with dead letters of these bodies. */
async function withDeadLetters(...bodies: string[]): Promise<{ queue: QueueApi; dead: QueueApi }> {
  const dead = await shared.newQueue();
  const queue = await shared.newQueue({ deadLetterQueue: dead.name });
  await queue.enqueue(...bodies.map((body) => ({ body, headers: { first: body.slice(0, 1) } })));
  for (const message of await queue.dequeue({ maxMessages: 100, waitSeconds: 5 })) {
    const { json: answer } = await queue.request<{ nacked: string[] }>('nack', {
      receipts: [message.receipt],
      deadLetter: true,
      reason: `no ${message.body}`,
    });
    expect(answer.nacked).toHaveLength(1);
  }
  return { queue, dead };
}

describe('dead', { timeout: COMMANDS_MS }, () => {
  it('finds, reads, redrives and drops dead letters by the name of either queue', async () => {
    const { queue, dead } = await withDeadLetters('apples', 'pears', 'plums');
    const overview = await json<{ name: string; sources: string[] }[]>('dead', 'list');
    expect(overview.find(({ name }) => name === dead.name)).toMatchObject({
      sources: [queue.name],
      stats: { ready: 3 },
    });
    const found = lines(await succeed('dead', 'list', queue.name, '--reason', 'no pears', '--json')).map(
      (line) => JSON.parse(line) as { id: string; body: string },
    );
    expect(found.map(({ body }) => body)).toEqual(['pears']);
    expect(await succeed('dead', 'show', found[0]?.id as string)).toMatch(
      new RegExp(`moved .* from ${queue.name}: rejected after 1 receives, no pears[^]*\\npears\\n`),
    );
    expect(await json<JobAnswer>('dead', 'redrive', queue.name, '--header', 'first=p', '--max', '1')).toMatchObject({
      kind: 'redrive',
      queue: dead.name,
      filter: { source: queue.name, header: 'first=p' },
      done: 1,
    });
    expect((await queue.get()).stats.ready).toBe(1);
    expect(await run(['dead', 'drop', queue.name])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--yes'),
    });
    expect(await json<JobAnswer>('dead', 'drop', dead.name, '--body', 'apples', '--yes')).toMatchObject({
      done: 1,
      state: 'done',
    });
    expect((await dead.browse('ready')).map(({ body }) => body)).toHaveLength(1);
    const alive = await shared.newQueue();
    await alive.enqueue('not dead');
    expect(await run(['dead', 'drop', alive.name, '--yes'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('has no dead-letter queue'),
    });
    expect((await alive.get()).stats.ready).toBe(1);
    const begun = await json<JobAnswer>('redrive', dead.name, '--no-wait');
    expect(await json<JobAnswer>('job', 'wait', begun.id)).toMatchObject({ id: begun.id, state: 'done', done: 1 });
    expect(await succeed('job', 'list', '--queue', dead.name)).toMatch(
      new RegExp(`${begun.id} +redrive +${dead.name} +done +1`),
    );
  });

  it('acts on one message', async () => {
    const { queue, dead } = await withDeadLetters('one');
    const other = await shared.newQueue();
    const [message] = await dead.browse('ready');
    const id = message?.id as string;
    await succeed('message', 'redrive', id);
    expect((await queue.get()).stats.ready).toBe(1);
    await succeed('message', 'move', id, '--to', other.name);
    expect(await json<MessageAnswer>('message', 'show', id)).toMatchObject({ deliveries: [{ queue: other.name }] });
    await succeed('message', 'ack', id, '--queue', other.name);
    expect(await succeed('message', 'show', id)).toMatch(/state +settled/);
    expect(await run(['message', 'cancel', id])).toMatchObject({ code: 1, stderr: expect.stringContaining('rowmq:') });
  });
});

describe('replay', { timeout: COMMANDS_MS }, () => {
  it('copies what was settled in a time range', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('a', 'b');
    const messages = await queue.dequeue({ maxMessages: 10, waitSeconds: 5 });
    await queue.ack(...messages.map(({ receipt }) => receipt));
    expect(await json('replay', queue.name, '--from', '1h')).toEqual({
      replayed: 2,
      owed: 0,
      complete: true,
      cursor: null,
    });
    expect((await queue.get()).stats.ready).toBe(2);
    expect(await run(['replay', queue.name, '--from', 'yesterday'])).toMatchObject({ code: 2 });
  });
});

describe('topic', { timeout: COMMANDS_MS }, () => {
  it('creates, subscribes, publishes, shows, unsubscribes and deletes', async () => {
    const [wants, all] = [await shared.newQueue(), await shared.newQueue()];
    const topic = newQueueName();
    await succeed('topic', 'create', topic, '--deduplication-seconds', '1h');
    await succeed('topic', 'subscribe', topic, all.name);
    await succeed('topic', 'subscribe', topic, wants.name, '--filter', '{"event":["created"]}');
    expect(await json('topic', 'publish', topic, 'x', '--header', 'event=created')).toMatchObject({ subscriptions: 2 });
    expect(await succeed('topic', 'publish', topic, 'y', '--header', 'event=deleted')).toContain('to 1 queue');
    expect(await json<TopicAnswer>('topic', 'show', topic)).toMatchObject({
      deduplicationSeconds: 3600,
      subscriptions: { length: 2 },
    });
    expect(await succeed('topic', 'list')).toMatch(new RegExp(`${topic} +2 `));
    expect(await run(['topic', 'subscribe', topic, all.name, '--filter', '{"event":"created"}'])).toMatchObject({
      code: 2,
    });
    await succeed('topic', 'unsubscribe', topic, all.name);
    await succeed('topic', 'delete', topic, '--yes');
    expect([(await wants.get()).stats.ready, (await all.get()).stats.ready]).toEqual([1, 2]);
  });
});

describe('schedule', { timeout: COMMANDS_MS }, () => {
  it('is set, disabled, enabled, run and deleted', async () => {
    const queue = await shared.newQueue();
    const name = newQueueName();
    const set = ['schedule', 'set', name, '{"report":1}', '--queue', queue.name];
    expect(await run([...set])).toMatchObject({ code: 2, stderr: expect.stringContaining('everySeconds') });
    const made = await json<ScheduleAnswer>(
      ...set,
      '--cron',
      '30 3 * * *',
      '--time-zone',
      'Europe/Berlin',
      '--priority',
      '9',
    );
    expect(made).toMatchObject({
      cron: '30 3 * * *',
      timeZone: 'Europe/Berlin',
      message: { priority: 9 },
      enabled: true,
    });
    await succeed('schedule', 'disable', name);
    expect(await succeed('schedule', 'list')).toMatch(new RegExp(`${name} .*not enabled`));
    await succeed('schedule', 'enable', name);
    const { lastRun: _, lastFailure: __, ...before } = made;
    expect(await json('schedule', 'show', name)).toMatchObject(before);
    const { messageId } = await json<{ messageId: string }>('schedule', 'run', name);
    expect((await queue.browse('ready')).map(({ id }) => id)).toEqual([messageId]);
    await succeed('schedule', 'delete', name, '--yes');
    expect(await run(['schedule', 'show', name])).toMatchObject({ code: 1 });
  });
});

describe('key and audit', { timeout: COMMANDS_MS }, () => {
  it('create, rotate and revoke a key, and tell who did', async () => {
    const name = newQueueName();
    const made = await run([
      'key',
      'create',
      name,
      '--scope',
      'enqueue',
      '--scope',
      'dequeue',
      '--pattern',
      'orders*',
      '--expires',
      '30d',
    ]);
    expect(made).toMatchObject({ code: 0, stdout: expect.stringMatching(/^rowmq_\w+_\S+\n$/) });
    expect(await json<KeyAnswer>('key', 'show', name)).toMatchObject({
      scopes: ['enqueue', 'dequeue'],
      patterns: ['orders*'],
    });
    const rotated = await json<NewKeyAnswer>('key', 'rotate', name, '--old', '0');
    expect(rotated.secret).not.toBe(made.stdout.trim());
    expect(await succeed('key', 'list')).toMatch(new RegExp(`^${name} +enqueue, dequeue +orders\\* +never`, 'm'));
    expect(await run(['key', 'create', name, '--scope', 'everything'])).toMatchObject({ code: 2 });
    await succeed('key', 'revoke', name, '--yes');
    const actions = await eventually('the audit', async () => {
      const found = lines(await succeed('audit', '--path', '/v1/admin/keys', '--json')).map(
        (line) => JSON.parse(line) as { action: string },
      );
      return found.length >= 3 && found.map(({ action }) => action);
    });
    expect(actions.slice(0, 3)).toEqual(['revokeKey', 'rotateKey', 'createKey']);
    expect(await succeed('audit', '--limit', '1')).toMatch(/^AT +KEY[^]*revokeKey +204/);
  });
});

describe('tail', { timeout: COMMANDS_MS }, () => {
  it('prints messages as they arrive, each once, until SIGINT', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('before');
    const { child, ended } = startRowmq(['tail', queue.name, '-f', '--interval', '0.2', '--json'], env());
    let seen = '';
    child.stdout.on('data', (chunk: Buffer) => (seen += chunk.toString()));
    await eventually('the first message', () => seen.includes('before'), 60_000);
    await queue.enqueue('later');
    const [leased] = await queue.dequeue({ maxMessages: 1 });
    expect(leased).toBeDefined();
    await queue.enqueue({ body: 'delayed', delaySeconds: 600 });
    await eventually('the others', () => seen.includes('later') && seen.includes('delayed'), 60_000);
    child.kill('SIGINT');
    const { code, stdout, stderr } = await ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(lines(stdout).map((line) => (JSON.parse(line) as { body: string }).body)).toEqual([
      'before',
      'later',
      'delayed',
    ]);
  });

  it('goes by the clock of the broker, not by that of this machine', async () => {
    const queue = await shared.newQueue();
    const ahead = 'const { now } = Date; Date.now = () => now() + 60_000;';
    const { child, ended } = startRowmq(['tail', queue.name, '-f', '--since', '0', '--interval', '0.2', '--json'], {
      ...env(),
      NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(ahead)}`,
    });
    let seen = '';
    child.stdout.on('data', (chunk: Buffer) => (seen += chunk.toString()));
    await eventually(
      'a message',
      async () => {
        await queue.enqueue('new');
        return seen.includes('"new"');
      },
      60_000,
    );
    child.kill('SIGINT');
    expect(await ended).toMatchObject({ code: 0, stderr: '' });
  });

  it('follows a topic through a queue of its own, and leaves nothing behind', async () => {
    const topic = newQueueName();
    await succeed('topic', 'create', topic);
    const { child, ended } = startRowmq(['tail', topic, '--topic', '-f', '--json'], env());
    let seen = '';
    child.stdout.on('data', (chunk: Buffer) => (seen += chunk.toString()));
    await eventually(
      'its subscription',
      async () => (await json<TopicAnswer>('topic', 'show', topic)).subscriptions.length === 1,
      60_000,
    );
    await succeed('topic', 'publish', topic, 'news');
    await eventually('the message', () => seen.includes('"news"'), 60_000);
    child.kill('SIGINT');
    expect(await ended).toMatchObject({ code: 0, stderr: '' });
    expect((await json<TopicAnswer>('topic', 'show', topic)).subscriptions).toEqual([]);
  });

  it('leaves nothing behind when the reader of its output is gone', async () => {
    const topic = newQueueName();
    await succeed('topic', 'create', topic);
    const { child, ended } = startRowmq(['tail', topic, '--topic', '-f', '--json'], env());
    ended.catch(() => undefined);
    const exited = new Promise<number | null>((resolve) => child.once('exit', resolve));
    child.stdout.once('data', () => child.stdout.destroy());
    const subscriptions = async () => (await json<TopicAnswer>('topic', 'show', topic)).subscriptions;
    await eventually('its subscription', async () => (await subscriptions()).length === 1, 60_000);
    await eventually(
      'its end',
      async () => {
        await succeed('topic', 'publish', topic, 'news');
        return child.exitCode !== null;
      },
      60_000,
    );
    expect(await exited).toBe(0);
    expect(await subscriptions()).toEqual([]);
  });
});

describe('bench', { timeout: COMMANDS_MS }, () => {
  it('gets back what it sent, tells rates and times, and leaves nothing behind', async () => {
    type Report = { sent: number; received: number; endToEndMs: { p50: number; max: number } };
    const report = await json<Report>('bench', '--seconds', '1', '--producers', '2', '--consumers', '2');
    expect(report.sent).toBeGreaterThan(0);
    expect(report.received).toBe(report.sent);
    expect(report.endToEndMs.p50).toBeGreaterThan(0);
    expect(report.endToEndMs.max).toBeGreaterThanOrEqual(report.endToEndMs.p50);
    const queues = await json<{ name: string }[]>('queue', 'list', 'rowmq-bench-*');
    expect(queues).toEqual([]);
  });
});

describe('profile', { timeout: COMMANDS_MS }, () => {
  it('keeps a broker and its key where only the owner can read it', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'rowmq-profile-'));
    try {
      const file = join(folder, 'sub', 'config.json');
      const at = async (args: string[], input?: string): Promise<Ended> =>
        rowmq(args, { env: { ROWMQ_CONFIG: file }, ...(input !== undefined && { input }) });
      expect(
        await at(['profile', 'set', 'here', '--address', shared.broker.url, '--key-stdin'], `${ADMIN}\n`),
      ).toMatchObject({ code: 0 });
      expect((await stat(file)).mode & 0o777).toBe(0o600);
      const listed = await at(['profile', 'list']);
      expect(listed.stdout).toMatch(/^here +http:\S+ +yes +yes$/m);
      expect(listed.stdout).not.toContain(ADMIN);
      expect(await at(['queue', 'list', '--json'])).toMatchObject({ code: 0, stderr: '' });
      expect(await at(['profile', 'use', 'there'])).toMatchObject({ code: 2 });
      expect(await at(['profile', 'delete', 'here'])).toMatchObject({ code: 0 });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
