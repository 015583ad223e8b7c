import type { Browser, Page } from 'playwright-core';
import { describe, expect, test } from 'vitest';
import { useBroker } from '../support/api.js';
import { Reader } from '../support/dashboard.js';
import { useChromium } from '../support/use-chromium.js';

const open = useBroker();
let browser: Browser;

useChromium((started) => (browser = started));

/** The page below the form has read this path, and drawn what it read. */
async function hasReadAgain(page: Page, path: string): Promise<void> {
  const isIt = (response: { url(): string }): boolean => new URL(response.url()).pathname === path;
  await page.waitForResponse(isIt);
  // The page draws one answer before it asks for the next.
  await page.waitForResponse(isIt);
}

describe('a form keeps what was typed while the page below it reads again', () => {
  test('the settings of a queue', async () => {
    const queue = await open.newQueue({ leaseSeconds: 30 });
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}/settings` });
    const { page } = reader;
    await page.getByRole('button', { name: 'Change settings' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Lease, in seconds').fill('77');
    await hasReadAgain(page, `/v1/admin/queues/${queue.name}`);
    await dialog.getByRole('button', { name: 'Save' }).click();
    await page.getByText('Saved leaseSeconds.').waitFor();
    expect(await queue.get()).toMatchObject({ leaseSeconds: 77 });
    await reader.expectNoComplaints();
  });

  test('the priority of a message', async () => {
    const queue = await open.newQueue();
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}` });
    const { page } = reader;
    await page.getByRole('button', { name: 'Send a message' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Priority').fill('9');
    await dialog.getByLabel('Body').fill('urgent');
    await hasReadAgain(page, `/v1/admin/queues/${queue.name}`);
    await dialog.getByRole('button', { name: 'Send' }).click();
    await dialog.waitFor({ state: 'detached' });
    expect(await queue.browse('ready')).toMatchObject([{ body: 'urgent', priority: 9 }]);
    await reader.expectNoComplaints();
  });

  test('the rate of a redrive, and the condition of a filter', async () => {
    const queue = await open.newQueue();
    const path = `/v1/admin/queues/${queue.name}`;
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}` });
    const { page } = reader;
    await page.getByText('Filter').click();
    await page.getByLabel('Body contains').fill('only these');
    await hasReadAgain(page, path);
    await page.getByRole('button', { name: 'Apply' }).click();
    await page.getByRole('button', { name: 'Redrive these' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Messages a second at most').fill('7');
    await dialog.getByLabel(`Type ${queue.name} to confirm`).fill(queue.name);
    await hasReadAgain(page, path);
    await dialog.getByRole('button', { name: 'Redrive' }).click();
    await page.getByText('The redrive has begun.').waitFor();
    expect((await open.api.get(`/v1/admin/jobs?queue=${queue.name}`)).json).toMatchObject({
      jobs: [{ filter: { body: 'only these' }, messagesPerSecond: 7 }],
    });
    await reader.expectNoComplaints();
  });

  test('the body of a schedule', async () => {
    const queue = await open.newQueue();
    const path = `/v1/admin/schedules/forms-${queue.name}`;
    await open.api.put(path, { cron: '30 3 1 1 *', queue: queue.name, message: { body: 'before' } });
    const reader = await Reader.open(browser, open.broker.url, { path: '/schedules' });
    const { page } = reader;
    await page.getByRole('button', { name: `Change forms-${queue.name}` }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Body').fill('after');
    await hasReadAgain(page, '/v1/admin/schedules');
    await dialog.getByRole('button', { name: 'Save' }).click();
    await dialog.waitFor({ state: 'detached' });
    expect((await open.api.get(path)).json).toMatchObject({ message: { body: 'after' } });
    await reader.expectNoComplaints();
  });
});
