import { type Browser, chromium } from 'playwright-core';
import { findChromium } from './chromium.js';

/** Starts Chromium headless, without its own requests to other hosts. */
export async function startChromium(): Promise<Browser> {
  const executablePath = findChromium();
  if (executablePath === undefined) {
    throw new Error(
      'There is no Chromium. Install it with `apt-get install -y chromium`, or set CHROMIUM to its path.',
    );
  }
  return chromium.launch({
    executablePath,
    args: [
      '--no-sandbox',
      '--disable-dev-shm-usage',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}
