import { existsSync, readFileSync } from 'node:fs';
import type { Browser } from 'playwright-core';

/** scripts/test.mjs reads the same file before it installs Chromium. */
const USUAL_PATHS: string[] = JSON.parse(readFileSync(new URL('chromium-paths.json', import.meta.url), 'utf8'));

/**
 * The path of the system's Chromium, or of the one that CHROMIUM names. Undefined if there is none.
 */
export function findChromium(): string | undefined {
  return [process.env['CHROMIUM'] ?? '', ...USUAL_PATHS].find((path) => path !== '' && existsSync(path));
}

/** Starts Chromium headless, without its own requests to other hosts. */
export async function startChromium(): Promise<Browser> {
  const executablePath = findChromium();
  if (executablePath === undefined) {
    throw new Error(
      'There is no Chromium. Install it with `apt-get install -y chromium`, or set CHROMIUM to its path.',
    );
  }
  // Imported here only, because vitest.config.ts needs the path but no browser.
  const { chromium } = await import('playwright-core');
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
