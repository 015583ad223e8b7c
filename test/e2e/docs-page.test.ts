import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Browser } from 'playwright-core';
import { describe, expect, test } from 'vitest';
import { useBroker } from '../support/api.js';
import { useChromium } from '../support/use-chromium.js';

const shared = useBroker();
let browser: Browser;

useChromium((started) => (browser = started));

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
      has: page.getByRole('button', { name: 'PUT /v1/admin/queues/{queue} ' }),
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

describe('a page of another origin, in a real browser', () => {
  test('cannot use a broker on its reader’s machine', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('untouched');
    const site = createServer((_request, response) => response.setHeader('content-type', 'text/html').end('<p>Hi'));
    site.listen(0, '127.0.0.1');
    await once(site, 'listening');
    const { port } = site.address() as AddressInfo;

    const refusals = () => shared.api.metric('rowmq_request_duration_seconds_count{call="purge",status="403"}');
    const before = await refusals();
    const page = await browser.newPage();
    // Another port is the same site, and another name is another.
    for (const host of ['127.0.0.1', 'localhost']) {
      await page.goto(`http://${host}:${port}/`);
      const kind = await page.evaluate(async (url) => {
        // A browser sends this request without a preflight and hides its answer.
        const answer = await fetch(url, { method: 'POST', mode: 'no-cors' });
        return answer.type;
      }, `${shared.broker.url}${queue.adminPath}/purge`);
      expect(kind).toBe('opaque');
    }
    expect(await queue.browse('ready')).toHaveLength(1);
    expect(await refusals()).toBe(before + 2);
    await page.close();
    site.closeAllConnections();
    site.close();
  });
});
