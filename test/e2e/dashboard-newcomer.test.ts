import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Browser } from 'playwright-core';
import { expect, test } from 'vitest';
import { useOwnBroker } from '../support/api.js';
import { startChromium } from '../support/start-chromium.js';
import { programPath } from '../support/cli.js';
import { Reader } from '../support/dashboard.js';
import { blocksOf } from '../support/docs.js';

/* The path of a newcomer, as docs/dashboard.md describes it, in a real browser. */

const shared = useOwnBroker();

/** Runs the commands of the page in a folder that has `rowmq`. */
async function runCommands(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'rowmq-newcomer-'));
  try {
    await writeFile(join(folder, 'rowmq'), `#!/bin/sh\nexec '${process.execPath}' '${programPath()}' "$@"\n`, {
      mode: 0o755,
    });
    const [commands] = await blocksOf('docs/dashboard.md', 'sh');
    const script = ['-euo', 'pipefail', '-c', commands?.text ?? 'false'];
    const { stdout } = await promisify(execFile)('bash', script, {
      env: {
        ...process.env,
        PATH: `${folder}:${process.env['PATH']}`,
        ROWMQ: shared.broker.url,
        ROWMQ_CONFIG: '/nonexistent',
      },
      cwd: folder,
      timeout: 60_000,
    });
    return stdout;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The first page says at once that there is a dead letter, and leads to it. */
async function whoIsWoken(browser: Browser): Promise<void> {
  const reader = await Reader.open(browser, shared.broker.url);
  const reason = reader.page.locator('.attention li', { hasText: 'orders-dead: 1 dead letter' });
  await reason.getByRole('link', { name: 'orders-dead' }).click();
  await reader.heading('orders-dead');
  await reader.page.getByText('payment gateway is down').first().waitFor();
  await reader.expectNoComplaints();
}

/** It starts a browser and several processes, which take seconds each on a busy machine. */
const PATH_MS = 240_000;

test(
  'a newcomer needs six clicks from the first page to a dead letter that is understood and redriven',
  { timeout: PATH_MS },
  async () => {
    const browser = await startChromium();
    try {
      const reader = await Reader.open(browser, shared.broker.url);
      const { page } = reader;
      let clicks = 0;
      const click = async (role: 'button' | 'link', name: string, within: 'main' | 'dialog'): Promise<void> => {
        clicks += 1;
        await page.getByRole(within).getByRole(role, { name, exact: true }).first().click();
      };
      await reader.heading('Queues');
      await click('button', 'Create a queue', 'main');
      await page.getByLabel('Name').fill('orders');
      await page.getByLabel('Dead-letter queue').fill('orders-dead');
      await click('button', 'Create', 'dialog');
      await reader.heading('orders');
      await page.getByText('No message is ready.').waitFor();

      expect(await runCommands()).toContain('"nacked":["');
      await click('link', 'orders-dead', 'main');
      await reader.heading('orders-dead');
      await whoIsWoken(browser);
      const row = page.locator('.messages li').first();
      await row.getByText('from orders · moved because a consumer rejected it: payment gateway is down').waitFor();
      clicks += 1;
      await row.locator('summary').click();
      await row.getByText('customer').waitFor();
      await row.getByText('ada').waitFor();
      expect(await row.getByLabel('Body', { exact: true }).innerText()).toContain('"order": 17');
      clicks += 1;
      await row.getByRole('button', { name: 'Redrive' }).click();
      await click('button', 'Redrive', 'dialog');
      await page.getByText('The message was redriven.').waitFor();
      await page.getByText('No message is ready.').waitFor();
      expect(await shared.api.queue('orders').browse('ready')).toMatchObject([{ body: '{"order":17}' }]);
      expect(clicks).toBe(6);
      await reader.expectNoComplaints();
    } finally {
      await browser.close();
    }
  },
);
