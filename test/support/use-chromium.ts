import type { Browser } from 'playwright-core';
import { afterAll, beforeAll } from 'vitest';
import { startChromium } from './start-chromium.js';

/** Chromium for the tests of a file. */
export function useChromium(started: (browser: Browser) => void): void {
  let browser: Browser | undefined;
  beforeAll(async () => {
    browser = await startChromium();
    started(browser);
  });
  afterAll(async () => {
    await browser?.close();
  });
}
