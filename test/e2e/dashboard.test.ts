import { createConnection } from 'mysql2/promise';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Api, newQueueName, useBroker } from '../support/api.js';
import { Reader } from '../support/dashboard.js';
import { openGateway } from '../support/gateway.js';
import { apiWith, newKey } from '../support/keys.js';
import { insertQueues } from '../support/many-queues.js';
import { type Broker, createMigratedDatabase, startBroker } from '../support/processes.js';
import { useChromium } from '../support/use-chromium.js';
import { eventually } from '../support/wait.js';

const ADMIN_KEY = 'the-admin-key-of-the-dashboard-test';
/** Chromium writes a line for each refusal. */
const REFUSALS = /Failed to load resource/;
const HOSTILE = `<script>window.hacked = true</script><img src="x" onerror="window.hacked = true"><svg onload="window.hacked = true">`;

const open = useBroker();
let browser: Browser;

useChromium((started) => (browser = started));

describe('the dashboard of a broker without keys, in a real browser', () => {
  test('creates a queue, and shows a message arrive and leave without a reload', async () => {
    const name = newQueueName();
    const reader = await Reader.open(browser, open.broker.url, { path: '' });
    const { page } = reader;
    await reader.heading('Queues');
    await page.getByRole('button', { name: 'Create a queue' }).first().click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Name').fill(name);
    await dialog.getByRole('button', { name: 'Create' }).click();
    await reader.heading(name);
    await page.getByText('No message is ready.').waitFor();

    const queue = open.api.queue(name);
    await queue.enqueue('an order arrives');
    await page.getByText('an order arrives').first().waitFor();
    const { receipt } = await queue.dequeueOne();
    await page.getByText('No message is ready.').waitFor();
    await page.getByRole('button', { name: /^Leased/ }).click();
    await page.getByText('an order arrives').first().waitFor();
    await queue.ack(receipt);
    await page.getByText('No message is leased.').waitFor();
    await reader.expectNoComplaints();
  });

  test('sends a message with headers, and refuses to create a queue twice', async () => {
    const queue = await open.newQueue();
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}` });
    const { page } = reader;
    await page.getByRole('button', { name: 'Send a message' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Body').fill('{"order":17}');
    await dialog.getByLabel('Headers').fill('event: order-created\nuser: Ada');
    await dialog.getByRole('button', { name: 'Send' }).click();
    await dialog.waitFor({ state: 'detached' });
    expect(await queue.browse('ready')).toMatchObject([
      { body: '{"order":17}', headers: { event: 'order-created', user: 'Ada' } },
    ]);

    await reader.go('/queues');
    await page.getByRole('button', { name: 'Create a queue' }).first().click();
    await dialog.getByLabel('Name').fill(queue.name);
    await dialog.getByRole('button', { name: 'Create' }).click();
    await dialog.getByRole('alert').filter({ hasText: 'exists' }).waitFor();
    await reader.expectNoComplaints(REFUSALS);
  });

  test('shows a hostile body as text, which does not run', async () => {
    const queue = await open.newQueue();
    await queue.enqueue({ body: HOSTILE, headers: { 'x-<b>': HOSTILE.slice(0, 60) } }, { body: '\u202Egpj.exe' });
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}` });
    const { page } = reader;
    await page.locator('.messages summary').first().waitFor();
    await page.locator('.messages summary').first().click();
    await page.getByLabel('Body', { exact: true }).first().waitFor();
    expect(await page.getByLabel('Body', { exact: true }).first().innerText()).toBe(HOSTILE);
    await page.getByText('⟨U+202E⟩gpj.exe').first().waitFor();
    expect(await page.evaluate('window.hacked')).toBeUndefined();
    expect(await page.locator('main script, main [onerror], main [onload]').count()).toBe(0);
    await reader.expectNoComplaints();
  });

  test('pages through a deep queue, and keeps the numbers of long ids', async () => {
    const queue = await open.newQueue();
    const bodies = Array.from({ length: 50 }, (_, index) => `{"id":1234567890123456789${index}}`);
    await queue.enqueue(...bodies);
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}` });
    const { page } = reader;
    const seen = new Set<string>();
    for (const number of [1, 2, 3]) {
      await page.getByText(`Page ${number}`).waitFor();
      await eventually(`page ${number} shows others`, async () => {
        const shown = await page.locator('.messages .preview').allInnerTexts();
        return shown.length > 0 && shown.every((body) => !seen.has(body));
      });
      for (const body of await page.locator('.messages .preview').allInnerTexts()) seen.add(body);
      const next = page.getByRole('button', { name: 'Next' });
      if (number < 3) await next.click();
      else expect(await next.isDisabled()).toBe(true);
    }
    expect([...seen].toSorted()).toEqual(bodies.toSorted());
    await page.locator('.messages summary').first().click();
    expect(await page.getByLabel('Body', { exact: true }).first().innerText()).toMatch(
      /^\{\n {2}"id": 1234567890123456789\d+\n\}$/,
    );
    await reader.expectNoComplaints();
  });

  test('pauses, resumes, purges and deletes a queue after its name was typed', async () => {
    const queue = await open.newQueue();
    await queue.enqueue('one', 'two');
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}` });
    const { page } = reader;
    await reader.confirm('Pause', queue.name);
    expect(await queue.get()).toMatchObject({ paused: true, producersPaused: false });
    await page.locator('h1 .badge', { hasText: 'paused' }).waitFor();
    await reader.confirm('Resume', queue.name);
    expect(await queue.get()).toMatchObject({ paused: false });
    await reader.confirm('Purge', queue.name);
    await page.getByText('2 messages done').waitFor();
    expect((await queue.get()).stats).toMatchObject({ ready: 0 });
    await reader.confirm('Delete', queue.name);
    await reader.heading('Queues');
    expect((await open.api.get(queue.adminPath)).status).toBe(404);
    await reader.expectNoComplaints(REFUSALS);
  });

  test('redrives the dead letters that a filter selects, and shows the job', async () => {
    const dead = await open.newQueue();
    const queue = await open.newQueue({ deadLetterQueue: dead.name, maxReceives: 1 });
    await queue.enqueue('gateway 1', 'gateway 2', 'broken');
    for (const { receipt, body } of await queue.dequeue({ maxMessages: 3, waitSeconds: 5 }))
      await queue.request('nack', {
        receipts: [receipt],
        reason: body.startsWith('gateway') ? 'gateway is down' : 'bad data',
        deadLetter: true,
      });
    await eventually('all are dead letters', async () => (await dead.browse('ready')).length === 3);
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${dead.name}` });
    const { page } = reader;
    await page.getByText('bad data').first().waitFor();
    await page.getByText('Filter', { exact: true }).click();
    await page.getByLabel('Reason contains').fill('gateway');
    await page.getByRole('button', { name: 'Apply' }).click();
    await page.getByText('bad data').first().waitFor({ state: 'detached' });
    await reader.confirm('Redrive these', dead.name);
    await page.getByText('2 messages done').waitFor();
    expect((await queue.browse('ready')).map(({ body }) => body).toSorted()).toEqual(['gateway 1', 'gateway 2']);
    expect((await dead.browse('ready')).map(({ body }) => body)).toEqual(['broken']);

    // The life of a message says what happened.
    const [redriven] = await queue.browse('ready');
    await reader.go(`/messages/${redriven?.id}`);
    await page.getByText('because a consumer rejected it').waitFor();
    await page.getByText('because it was redriven').waitFor();
    await reader.expectNoComplaints();
  });
});

describe('the dashboard of a broker with a thousand queues', () => {
  test('finds one of them, sorts them by depth, and asks for one page of them at a time', async () => {
    const broker = await startBroker();
    try {
      const connection = await createConnection({ uri: broker.database.url });
      await insertQueues(
        connection,
        Array.from({ length: 1000 }, (_, index) => `tenant-${String(index).padStart(4, '0')}`),
      );
      await connection.end();
      await new Api(broker.url).queue('tenant-0777').enqueue(...Array.from({ length: 100 }, () => 'x'));
      const reader = await Reader.open(browser, broker.url);
      const { page } = reader;
      await page.getByText('1,000 queues').waitFor();
      expect(await page.locator('table.queues tbody tr').count()).toBe(50);
      await page.getByRole('button', { name: 'Ready' }).click();
      await page.locator('table.queues tbody tr:first-child', { hasText: 'tenant-0777' }).waitFor();
      await page.getByRole('button', { name: 'Next' }).click();
      await page.getByText('51 to 100 of 1,000').waitFor();
      await page.getByLabel('Search queues by name').fill('tenant-0123');
      await page.getByText('1 queue', { exact: true }).waitFor();
      await page.getByRole('link', { name: 'tenant-0123' }).waitFor();
      await reader.expectNoComplaints();
    } finally {
      await broker.stop();
    }
  });
});

describe('the dashboard', () => {
  test('says how old its figures are when a broker counts seldom', async () => {
    const reader = await Reader.open(browser, open.broker.url);
    const { page } = reader;
    await reader.heading('Queues');
    await page.getByText('Needs attention').waitFor();
    expect(await page.getByText(/These figures are/).count()).toBe(0);
    // A broker with very many queues gives the same answer for a while.
    const answer = await (await fetch(`${open.broker.url}/v1/admin/overview`)).text();
    await page.route('**/v1/admin/overview*', async (route) =>
      route.fulfill({ body: answer, contentType: 'application/json' }),
    );
    await page.getByText(/These figures are 1\d s old/).waitFor();
    await page.unroute('**/v1/admin/overview*');
    await page.getByText(/These figures are/).waitFor({ state: 'detached' });
    await reader.expectNoComplaints();
  });

  test('runs a schedule, whose message arrives', async () => {
    const queue = await open.newQueue();
    const name = `nightly-${queue.name}`;
    const definition = { cron: '30 3 * * *', queue: queue.name, message: { body: 'a nightly report' } };
    expect((await open.api.put(`/v1/admin/schedules/${name}`, definition)).status).toBe(201);
    const reader = await Reader.open(browser, open.broker.url, { path: '/schedules' });
    await reader.page.getByRole('button', { name: `Run now: ${name}` }).click();
    await reader.page.getByText(`${name} ran`).waitFor();
    expect(await queue.browse('ready')).toMatchObject([{ body: 'a nightly report' }]);
    await reader.expectNoComplaints();
  });

  test('creates a topic, subscribes a queue and publishes', async () => {
    const queue = await open.newQueue();
    const topic = `topic-${queue.name}`;
    const reader = await Reader.open(browser, open.broker.url, { path: '/topics' });
    const { page } = reader;
    const dialog = page.getByRole('dialog');
    await page.getByRole('button', { name: 'Create a topic' }).click();
    await dialog.getByLabel('Name').fill(topic);
    await dialog.getByRole('button', { name: 'Create' }).click();
    await page.getByRole('button', { name: `Subscribe a queue: ${topic}` }).click();
    await dialog.getByLabel('Queue').fill(queue.name);
    await dialog.getByLabel('Filter').fill('{"event": ["paid"]}');
    await dialog.getByRole('button', { name: 'Subscribe' }).click();
    await page.getByText('{"event":["paid"]}').waitFor();
    await page.getByRole('button', { name: `Publish: ${topic}` }).click();
    await dialog.getByLabel('Body').fill('an event');
    await dialog.getByLabel('Headers').fill('event: paid');
    await dialog.getByRole('button', { name: 'Publish' }).click();
    await page.getByText('Published to 1 queue.').waitFor();
    expect(await queue.browse('ready')).toMatchObject([{ body: 'an event' }]);
    await reader.expectNoComplaints();
  });

  test('sends nothing while it is hidden, and asks at once when it is shown', async () => {
    const queue = await open.newQueue();
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}` });
    const { page } = reader;
    const show = async (isHidden: boolean): Promise<void> => {
      await page.evaluate(`{
        Object.defineProperty(document, 'hidden', { configurable: true, get: () => ${isHidden} });
        document.dispatchEvent(new Event('visibilitychange'));
      }`);
    };
    // From now on the page's clock is the test's.
    await page.clock.install();
    await page.reload();
    await page.getByText('No message is ready.').waitFor();
    const asksWithin = async (ms: number): Promise<number> => {
      const before = reader.requests;
      for (let ran = 0; ran < ms; ran += 5000) {
        await page.clock.runFor(5000);
        // A request that this began is on its way before this call has its answer.
        await page.evaluate(`fetch('health/live')`);
      }
      return reader.requests - before - ms / 5000;
    };
    // An answer that is late puts off the next request, so this counts no more than one.
    await eventually('the page asks', async () => (await asksWithin(5000)) > 0);
    await show(true);
    await asksWithin(5000);
    await queue.enqueue('sent to a hidden page');
    expect(await asksWithin(60_000)).toBe(0);
    expect(await page.getByText('sent to a hidden page').count()).toBe(0);
    await show(false);
    await page.getByText('sent to a hidden page').first().waitFor();
    await reader.expectNoComplaints();
  });

  describe.each(['light', 'dark'] as const)('in %s colours', (colorScheme) => {
    test.each([1280, 390])('has no serious finding of axe on any page, %d pixels wide', async (width) => {
      const dead = await open.newQueue();
      const queue = await open.newQueue({ deadLetterQueue: dead.name, maxReceives: 3 });
      const [id] = await queue.enqueue({ body: '{"a":1}', headers: { event: 'x' } });
      await dead.enqueue('a dead letter');
      await queue.job('redrive');
      const definition = { cron: '30 3 * * *', queue: queue.name, message: { body: 'x' } };
      await open.api.put(`/v1/admin/schedules/axe-${queue.name}`, definition);
      await open.api.put(`/v1/admin/topics/axe-${queue.name}/subscriptions/${queue.name}`, {});
      const reader = await Reader.open(browser, open.broker.url, { colorScheme, width });
      const pages: [path: string, text: string | RegExp][] = [
        ['/queues', 'Needs attention'],
        [`/queues/${queue.name}`, 'handed out'],
        [`/queues/${queue.name}/consumers`, 'Nobody has asked'],
        [`/queues/${queue.name}/jobs`, 'examined'],
        [`/queues/${queue.name}/settings`, 'Meaning'],
        [`/messages/${id}`, 'Enqueued to'],
        ['/messages', 'Id of the message'],
        ['/topics', 'Create a topic'],
        ['/schedules', 'Run now'],
        ['/jobs', 'examined'],
        ['/reaper', 'No reaper runs'],
        ['/database', 'Partitions'],
        ['/audit', 'putQueue'],
        ['/keys', 'API keys'],
        ['/nothing', 'There is no such page'],
      ];
      for (const [path, text] of pages) {
        await reader.go(path);
        if (text !== 'handed out') await reader.page.getByText(text).first().waitFor();
        else await reader.page.locator('.messages summary').first().click();
        expect(await reader.seriousFindings(), path).toEqual([]);
      }
      await reader.go(`/queues/${queue.name}`);
      await reader.page.getByRole('button', { name: 'Send a message' }).click();
      await reader.page.getByRole('dialog').waitFor();
      expect(await reader.seriousFindings(), 'a dialog').toEqual([]);
      await reader.expectNoComplaints();
    });
  });
});

describe('the dashboard while the database is away', () => {
  test('says so and what to do, keeps the last figures, and goes on when it is back', async () => {
    const database = await createMigratedDatabase();
    const gateway = await openGateway(database.url);
    const broker = await startBroker({ database: { ...database, url: gateway.url } });
    try {
      await new Api(broker.url).queue('orders').put();
      const reader = await Reader.open(browser, broker.url);
      const { page } = reader;
      const orders = page.getByRole('link', { name: 'orders' });
      await orders.waitFor();
      await gateway.shut();
      await page.getByText('The broker does not reach its database.').waitFor();
      await page.getByText('The command rowmq doctor says what is wrong').waitFor();
      expect(await orders.isVisible()).toBe(true);
      expect(await reader.seriousFindings()).toEqual([]);

      // A page that is opened now has no figures, and says the same below its heading.
      const late = await Reader.open(browser, broker.url, { path: '/queues/orders', width: 390 });
      await late.heading('orders');
      await late.page.getByText('The broker does not reach its database.').waitFor();
      expect(await late.page.getByText('Loading').count()).toBe(0);

      await gateway.open();
      for (const { page: each } of [reader, late])
        await each.getByText('The broker does not reach its database.').waitFor({ state: 'detached' });
      await late.page.getByText('No message is ready.').waitFor();
      await reader.expectNoComplaints(REFUSALS);
      await late.expectNoComplaints(REFUSALS);
    } finally {
      await gateway.open().catch(() => undefined);
      await broker.stop();
      await gateway.shut();
      await database.drop();
    }
  });
});

describe('the dashboard of a broker with keys, in a real browser', () => {
  let broker: Broker;
  let admin: Api;

  beforeAll(async () => {
    broker = await startBroker({ env: { ROWMQ_ADMIN_KEY: ADMIN_KEY } });
    admin = apiWith(broker.url, ADMIN_KEY);
    await admin.queue('orders.new').put();
    await admin.queue('elsewhere').put();
  });
  afterAll(async () => {
    await broker?.stop();
  });

  test('asks for a key, and keeps it where no script and no address shows it', async () => {
    const reader = await Reader.open(browser, broker.url);
    const { page, context } = reader;
    await page.getByLabel('API key').waitFor();
    expect(await reader.seriousFindings()).toEqual([]);
    await reader.logIn('a wrong key');
    await page.getByText('The API key is not valid').waitFor();
    await reader.logIn(ADMIN_KEY);
    await reader.heading('Queues');
    await page.getByRole('link', { name: 'orders.new' }).waitFor();

    const [cookie, ...others] = await context.cookies();
    expect(others).toEqual([]);
    expect(cookie).toMatchObject({ name: 'rowmq_session', httpOnly: true, sameSite: 'Strict', path: '/' });
    const readable = await page.evaluate(
      'JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }, location.href])',
    );
    expect(readable).not.toContain(cookie?.value);
    expect(JSON.stringify([readable, cookie])).not.toContain(ADMIN_KEY);

    await page.reload();
    await page.getByRole('link', { name: 'orders.new' }).waitFor();
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByLabel('API key').waitFor();
    // The session itself has ended, not only the cookie.
    const copied = await fetch(`${broker.url}/v1/admin/queues`, {
      headers: { cookie: `rowmq_session=${cookie?.value}`, 'x-rowmq-dashboard': '1' },
    });
    expect(copied.status).toBe(401);
    await reader.expectNoComplaints(REFUSALS);
  });

  test('shows a key that may only read what is there, and offers it no action', async () => {
    const { secret } = await newKey(admin, { scopes: ['read'] });
    const reader = await Reader.open(browser, broker.url);
    const { page } = reader;
    await reader.logIn(secret);
    await page.getByRole('link', { name: 'orders.new' }).click();
    await reader.heading('orders.new');
    await page.getByText('read only').waitFor();
    await page.getByText('No message is ready.').waitFor();
    const main = page.getByRole('main');
    for (const name of ['Send a message', 'Pause', 'Purge', 'Delete', 'Redrive'])
      expect(await main.getByRole('button', { name, exact: true }).count()).toBe(0);
    // The broker refuses them, too.
    const status = await page.evaluate(
      `fetch('v1/admin/queues/orders.new/purge', { method: 'POST', headers: { 'x-rowmq-dashboard': '1' } }).then(({ status }) => status)`,
    );
    expect(status).toBe(403);
    await reader.expectNoComplaints(REFUSALS);
  });

  test('shows a key with patterns only the queues that it reaches', async () => {
    const { secret } = await newKey(admin, { scopes: ['admin'], patterns: ['orders.*'] });
    const reader = await Reader.open(browser, broker.url);
    const { page } = reader;
    await reader.logIn(secret);
    await page.getByRole('link', { name: 'orders.new' }).waitFor();
    expect(await page.getByRole('link', { name: 'elsewhere' }).count()).toBe(0);
    await reader.expectNoComplaints(REFUSALS);
  });

  test('shows the login again soon after the key was revoked', async () => {
    const key = await newKey(admin, { scopes: ['admin'] });
    const reader = await Reader.open(browser, broker.url);
    await reader.logIn(key.secret);
    await reader.heading('Queues');
    expect((await admin.delete(`/v1/admin/keys/${key.name}`)).status).toBe(204);
    await reader.page.getByLabel('API key').waitFor();
    await reader.page.getByText('Your session has ended').waitFor();
    expect(await reader.seriousFindings()).toEqual([]);
    await reader.logIn(ADMIN_KEY);
    await reader.heading('Queues');
    await reader.page.getByRole('button', { name: 'Log out' }).click();
    await reader.page.getByLabel('API key').waitFor();
    expect(await reader.page.getByText('Your session has ended').count()).toBe(0);
    await reader.expectNoComplaints(REFUSALS);
  });

  test('serves a session through another broker, and after a restart', async () => {
    const other = await startBroker({ database: broker.database, env: { ROWMQ_ADMIN_KEY: ADMIN_KEY } });
    try {
      const login = await fetch(`${broker.url}/dashboard/session`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'x-rowmq-dashboard': '1', origin: broker.url },
        body: JSON.stringify({ key: ADMIN_KEY }),
      });
      expect(login.status).toBe(200);
      const cookie = (login.headers.get('set-cookie') ?? '').split(';')[0] as string;
      const headers = { cookie, 'x-rowmq-dashboard': '1' };
      const elsewhere = await fetch(`${other.url}/v1/admin/queues`, { headers });
      expect(elsewhere.status).toBe(200);
      // Another page's request carries the cookie at most, and a browser says where it came from.
      const forged: Record<string, string>[] = [
        { cookie },
        { ...headers, origin: 'https://evil.example' },
        { ...headers, 'sec-fetch-site': 'cross-site' },
        { ...headers, 'sec-fetch-site': 'same-site' },
      ];
      for (const each of forged) {
        const answer = await fetch(`${other.url}/v1/admin/queues/orders.new/purge`, { method: 'POST', headers: each });
        expect(answer.status, JSON.stringify(each)).toBe(403);
      }
    } finally {
      await other.stop();
    }
  });

  test('says that the broker is away, keeps the last figures, and goes on when it is back', async () => {
    const port = new URL(broker.url).port;
    const reader = await Reader.open(browser, broker.url);
    const { page } = reader;
    await reader.logIn(ADMIN_KEY);
    await page.getByRole('link', { name: 'orders.new' }).waitFor();
    await broker.stop();
    await page.getByText('The broker does not answer.').waitFor();
    expect(await page.getByRole('link', { name: 'orders.new' }).isVisible()).toBe(true);
    broker = await startBroker({
      database: broker.database,
      env: { ROWMQ_ADMIN_KEY: ADMIN_KEY, ROWMQ_PORT: port },
    });
    await page.getByText('The broker does not answer.').waitFor({ state: 'detached' });
    await page.getByRole('link', { name: 'orders.new' }).waitFor();
    await reader.expectNoComplaints(REFUSALS);
  });
});
