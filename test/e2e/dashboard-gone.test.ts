import type { Browser } from 'playwright-core';
import { describe, expect, test } from 'vitest';
import { useBroker } from '../support/api.js';
import { Reader } from '../support/dashboard.js';
import { useChromium } from '../support/use-chromium.js';

/** Chromium writes a line for each refusal. */
const REFUSALS = /Failed to load resource/;
const open = useBroker();
let browser: Browser;

useChromium((started) => (browser = started));

describe('a page of the dashboard', () => {
  test('says that its queue is gone, and no longer shows its figures and actions', async () => {
    const queue = await open.newQueue();
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}` });
    const { page } = reader;
    await page.getByText('No message is ready.').waitFor();
    await open.api.delete(`/v1/admin/queues/${queue.name}`);
    await page.getByRole('alert').filter({ hasText: 'does not exist' }).first().waitFor();
    await page.getByText('No message is ready.').waitFor({ state: 'detached' });
    expect(await page.getByRole('button', { name: 'Purge' }).count()).toBe(0);
    await reader.expectNoComplaints(REFUSALS);
  });

  test('says that figures are no longer read, and keeps the last ones', async () => {
    const queue = await open.newQueue();
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}` });
    const { page } = reader;
    await page.getByText('No message is ready.').waitFor();
    const body = JSON.stringify({ code: 'internal-error', detail: 'The broker failed unexpectedly.' });
    await page.route(`**/v1/admin/queues/${queue.name}`, async (route) =>
      route.fulfill({ status: 500, body, contentType: 'application/problem+json' }),
    );
    await page.getByRole('alert').filter({ hasText: 'The broker failed unexpectedly.' }).waitFor();
    expect(await page.getByText('No message is ready.').isVisible()).toBe(true);
    await page.unroute(`**/v1/admin/queues/${queue.name}`);
    await page.getByText('The broker failed unexpectedly.').waitFor({ state: 'detached' });
    await reader.expectNoComplaints(REFUSALS);
  });

  test('shows what the broker says to an address that makes no sense, and a filter to correct it', async () => {
    const queue = await open.newQueue();
    const reader = await Reader.open(browser, open.broker.url, { path: `/queues/${queue.name}?enqueuedFrom=never` });
    const { page } = reader;
    await page.getByRole('alert').filter({ hasText: 'enqueuedFrom' }).waitFor();
    await page.getByRole('button', { name: 'Clear' }).click();
    await page.getByText('No message is ready.').waitFor();
    await reader.expectNoComplaints(REFUSALS);
  });

  test('leads back from a page of queues that no longer exist', async () => {
    await open.newQueue();
    const reader = await Reader.open(browser, open.broker.url, { path: '/queues?offset=5000' });
    const { page } = reader;
    await page.getByText(/^none of /).waitFor();
    await page.getByRole('button', { name: 'Previous' }).click();
    await page.locator('table.queues tbody tr').first().waitFor();
    await reader.expectNoComplaints(REFUSALS);
  });
});
