import type { Browser, Locator, Page } from 'playwright-core';
import { describe, expect, test } from 'vitest';
import { useBroker } from '../support/api.js';
import { Reader } from '../support/dashboard.js';
import { useChromium } from '../support/use-chromium.js';

/** Chromium writes a line for each call without an answer. */
const FAILURES = /Failed to load resource/;
const open = useBroker();
let browser: Browser;

useChromium((started) => (browser = started));

/** Carries out the first call of this path, and loses its answer. */
async function loseAnswer(page: Page, path: string): Promise<void> {
  await page.route(
    `**${path}`,
    async (route) => {
      await route.fetch();
      await route.abort();
    },
    { times: 1 },
  );
}

/** Submits a form whose first answer is lost, and then again. */
async function submitTwice(dialog: Locator, name: string): Promise<void> {
  const button = dialog.getByRole('button', { name });
  await button.click();
  await dialog.getByRole('alert').filter({ hasText: 'does not answer' }).waitFor();
  await button.click();
  await dialog.waitFor({ state: 'detached' });
}

describe('the dashboard does once', () => {
  test('a message that is sent again after its answer was lost', async () => {
    const queue = await open.newQueue();
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}` });
    const { page } = reader;
    await loseAnswer(page, queue.messagesPath);
    await page.getByRole('button', { name: 'Send a message' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Body').fill('once');
    await submitTwice(dialog, 'Send');
    expect(await queue.browse('ready')).toHaveLength(1);

    // The same text in a new form is another message.
    await page.getByRole('button', { name: 'Send a message' }).click();
    await dialog.getByLabel('Body').fill('once');
    await dialog.getByRole('button', { name: 'Send' }).click();
    await dialog.waitFor({ state: 'detached' });
    expect(await queue.browse('ready')).toHaveLength(2);
    await reader.expectNoComplaints(FAILURES);
  });

  test('a message that is published again after its answer was lost', async () => {
    const queue = await open.newQueue();
    const topic = `once-${queue.name}`;
    await open.api.put(`/v1/admin/topics/${topic}`, {});
    await open.api.put(`/v1/admin/topics/${topic}/subscriptions/${queue.name}`, {});
    const reader = await Reader.open(browser, open.broker.url, { path: '/topics' });
    const { page } = reader;
    await loseAnswer(page, `/v1/topics/${topic}/messages`);
    await page.getByRole('button', { name: `Publish: ${topic}` }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Body').fill('once');
    await submitTwice(dialog, 'Publish');
    expect(await queue.browse('ready')).toHaveLength(1);
    await reader.expectNoComplaints(FAILURES);
  });

  test('a schedule that is clicked twice before its first run was answered', async () => {
    const queue = await open.newQueue();
    const name = `once-${queue.name}`;
    const definition = { cron: '30 3 1 1 *', queue: queue.name, message: { body: 'once' } };
    await open.api.put(`/v1/admin/schedules/${name}`, definition);
    const reader = await Reader.open(browser, open.broker.url, { path: '/schedules' });
    const { page } = reader;
    let answer: () => void = () => undefined;
    const clicked = new Promise<void>((resolve) => (answer = resolve));
    await page.route(`**/v1/admin/schedules/${name}/run`, async (route) => {
      await clicked;
      await route.continue();
    });
    await page.getByRole('button', { name: `Run now: ${name}` }).dblclick();
    answer();
    await page.getByText(`${name} ran`).first().waitFor();
    await page.getByRole('button', { name: `Run now: ${name}`, disabled: false }).waitFor();
    expect(await queue.browse('ready')).toHaveLength(1);
    await reader.expectNoComplaints();
  });

  test('a replay that is begun again after a call of it failed: it goes on there', async () => {
    const queue = await open.newQueue();
    const path = `/v1/admin/queues/${queue.name}/replay`;
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}` });
    const { page } = reader;
    const cursors: unknown[] = [];
    await page.route(`**${path}`, async (route) => {
      const { cursor } = route.request().postDataJSON() as { cursor?: string };
      cursors.push(cursor);
      if (cursors.length === 2) {
        await route.abort();
        return;
      }
      const isFirst = cursors.length === 1;
      const answer = { replayed: 3, owed: 0, complete: !isFirst, cursor: isFirst ? 'behind-three' : null };
      await route.fulfill({ json: answer });
    });
    await page.getByRole('button', { name: 'Replay' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Enqueued from').fill('2026-01-01T00:00:00');
    await dialog.getByLabel('and before').fill('2026-01-02T00:00:00');
    await dialog.getByLabel(`Type ${queue.name} to confirm`).fill(queue.name);
    await dialog.getByRole('button', { name: 'Replay' }).click();
    await dialog.getByRole('alert').filter({ hasText: 'it replayed 3 messages' }).waitFor();
    await dialog.getByRole('button', { name: 'Replay' }).click();
    await page.getByText('Replayed 6 messages.').waitFor();
    expect(cursors).toEqual([undefined, 'behind-three', 'behind-three']);
    await reader.expectNoComplaints(FAILURES);
  });

  test('a replay whose form is closed: it stops, and leaves alone a form that was opened meanwhile', async () => {
    const queue = await open.newQueue();
    const path = `/v1/admin/queues/${queue.name}/replay`;
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}` });
    const { page } = reader;
    let calls = 0;
    let answer: () => void = () => undefined;
    const isClosed = new Promise<void>((resolve) => (answer = resolve));
    await page.route(`**${path}`, async (route) => {
      calls += 1;
      await isClosed;
      await route.fulfill({ json: { replayed: 3, owed: 0, complete: false, cursor: `behind-${calls}` } });
    });
    await page.getByRole('button', { name: 'Replay' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Enqueued from').fill('2026-01-01T00:00:00');
    await dialog.getByLabel('and before').fill('2026-01-02T00:00:00');
    await dialog.getByLabel(`Type ${queue.name} to confirm`).fill(queue.name);
    await dialog.getByRole('button', { name: 'Replay' }).click();
    await dialog.getByRole('button', { name: 'Cancel' }).click();
    await dialog.waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Send a message' }).click();
    await dialog.getByLabel('Body').fill('typed meanwhile');
    answer();
    await page.getByText('Stopped the replay after 3 messages.').waitFor();
    expect(await dialog.getByLabel('Body').inputValue()).toBe('typed meanwhile');
    expect(calls).toBe(1);
    await reader.expectNoComplaints(FAILURES);
  });
});
