import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startChromium } from '../../../test/support/chromium.js';
import { Ledger } from './ledger.js';
import { Meter, type Sample } from './meter.js';
import { reportPage } from './report.js';
import type { Result } from './simulation.js';
import { readSimulatorSettings } from './simulator.config.js';
import { judge } from './verdict.js';

function exampleResult(): Result {
  const meter = new Meter();
  const samples = Array.from({ length: 30 }, (_, second): Sample => {
    meter.count('enqueued', 1000 + 20 * second);
    meter.count('dequeued', 990 + 18 * second);
    for (const what of ['enqueue', 'dequeue', 'ack', 'endToEnd'] as const) meter.time(what, 5 + second / 3);
    return meter.sample(second + 1, 1, second === 9 ? null : { ready: 100 + second, delayed: 3, leased: 40 });
  });
  const ledger = new Ledger(10);
  ledger.found('stranger', 'a body with </script><script>alert(1)</script> & "quotes"');
  const verdict = judge(ledger, { endedAt: 0, drained: true, stillThere: new Set(), unverified: new Set() });
  return {
    run: 'abc',
    settings: readSimulatorSettings(['--api-key', 'the-secret-key', '--crash-rate', '0.01'], {}),
    startedAt: new Date(0),
    samples,
    totals: meter.totals,
    errors: { overloaded: 3 },
    latency: meter.latency(),
    messages: 10,
    leases: 10,
    verdict,
    notes: ['A note <b>with markup</b>.'],
  };
}

describe('reportPage', () => {
  it('is complete in itself, keeps the key to itself, and takes nothing for markup', async () => {
    const page = await reportPage(exampleResult());
    expect(page).not.toMatch(/<(?:script|link|img)[^>]*(?:src|href)=/);
    expect(page).not.toContain('the-secret-key');
    expect(page).not.toContain('<script>alert(1)');
    expect(page).not.toContain('<b>with markup');
    expect(page).toContain('Verdict: BROKEN');
  });
});

describe('the report in a browser', () => {
  let folder: string;
  let browser: Browser;
  const problems: string[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'rowmq-report-'));
    await writeFile(join(folder, 'report.html'), await reportPage(exampleResult()));
    browser = await startChromium();
  });
  afterAll(async () => {
    await browser?.close();
    await rm(folder, { recursive: true });
  });

  async function open(colorScheme: 'light' | 'dark', width: number): Promise<Page> {
    const page = await browser.newPage({ colorScheme, viewport: { width, height: 900 } });
    page.on('console', (message) => problems.push(message.text()));
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('request', (request) => {
      if (!request.url().startsWith('file:')) problems.push(`asked for ${request.url()}`);
    });
    await page.goto(pathToFileURL(join(folder, 'report.html')).href);
    return page;
  }

  it.each([
    ['light', 1280],
    ['dark', 1280],
    ['light', 400],
  ] as const)(
    'draws every chart in %s at %i pixels, without errors, requests or sideways scrolling',
    async (scheme, width) => {
      const page = await open(scheme, width);
      const charts = await page.locator('[data-chart]').count();
      expect(charts).toBe(7);
      await expect.poll(() => page.locator('[data-chart] canvas').count(), { timeout: 10_000 }).toBe(charts);
      const colors = await page.evaluate<number[]>(COLORS_PER_CANVAS);
      // Three lines, axes and grid: a chart that was not drawn has one colour, nothing.
      expect(colors.every((count) => count > 10)).toBe(true);
      expect(await page.evaluate('document.documentElement.scrollWidth - innerWidth')).toBeLessThanOrEqual(0);
      expect(problems).toEqual([]);
      await page.close();
    },
  );

  it('follows the reader from light to dark, and the width of the window', async () => {
    const page = await open('light', 1280);
    const lightPixels = await page.evaluate<number[]>(COLORS_PER_CANVAS);
    await page.emulateMedia({ colorScheme: 'dark' });
    await page.setViewportSize({ width: 700, height: 900 });
    const width = () => page.evaluate<number>("document.querySelector('canvas').clientWidth");
    await expect.poll(width, { timeout: 10_000 }).toBeLessThan(680);
    expect(await page.locator('canvas').count()).toBe(lightPixels.length);
    expect(problems).toEqual([]);
    await page.close();
  });
});

/** Runs in the page: how many different colours each chart shows. */
const COLORS_PER_CANVAS = `[...document.querySelectorAll('canvas')].map((canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
})`;
