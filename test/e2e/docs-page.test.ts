import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useBroker } from '../support/api.js';
import { startChromium } from '../support/chromium.js';

const shared = useBroker();
let browser: Browser;

beforeAll(async () => {
  browser = await startChromium();
});
afterAll(async () => {
  await browser?.close();
});

describe('the page at /docs, in a real browser', () => {
  test('loads without errors and from nowhere but the broker, lists the calls and makes one', async () => {
    const page = await browser.newPage();
    const complaints: string[] = [];
    const elsewhere: string[] = [];
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
    });
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('requestfailed', (request) => complaints.push(`${request.url()} failed`));
    page.on('request', (request) => {
      const { origin, protocol } = new URL(request.url());
      if (protocol !== 'data:' && origin !== shared.broker.url) elsewhere.push(request.url());
    });

    await page.goto(`${shared.broker.url}/docs`);
    await page.locator('.opblock').first().waitFor();
    expect(await page.title()).toBe('RowMQ');
    const listed = await page
      .locator('.opblock')
      .evaluateAll((blocks) =>
        blocks.map((block) =>
          ['.opblock-summary-method', '.opblock-summary-path']
            .map((part) => block.querySelector(part)?.textContent?.replaceAll('\u200B', '') ?? '')
            .join(' '),
        ),
      );
    const { json } = await shared.api.get<{ paths: Record<string, Record<string, unknown>> }>('/openapi.json');
    const described = Object.entries(json.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(listed.toSorted()).toEqual(described.toSorted());

    const put = page.locator('.opblock', {
      has: page.locator('.opblock-summary-method', { hasText: 'PUT' }),
    });
    await put.locator('.opblock-summary-control').click();
    await put.getByRole('button', { name: 'Try it out' }).click();
    await put.getByPlaceholder('queue').fill('from-the-docs');
    await put.locator('textarea').fill('{"leaseSeconds": 77}');
    await put.getByRole('button', { name: 'Execute' }).click();
    const answer = put.locator('.live-responses-table .response');
    await answer.waitFor();
    expect(await answer.locator('.response-col_status').innerText()).toContain('201');
    expect(await answer.locator('.response-col_description').innerText()).toContain('"leaseSeconds": 77');
    expect(await shared.api.queue('from-the-docs').get()).toMatchObject({ leaseSeconds: 77 });

    expect(complaints).toEqual([]);
    expect(elsewhere).toEqual([]);
    await page.close();
  });
});
