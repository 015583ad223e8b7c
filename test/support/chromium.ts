import { existsSync, readFileSync } from 'node:fs';

/** scripts/test.mjs reads the same file before it installs Chromium. */
const USUAL_PATHS: string[] = JSON.parse(readFileSync(new URL('chromium-paths.json', import.meta.url), 'utf8'));

/**
 * The path of the system's Chromium, or of the one that CHROMIUM names. Undefined if there is none.
 */
export function findChromium(): string | undefined {
  return [process.env['CHROMIUM'] ?? '', ...USUAL_PATHS].find((path) => path !== '' && existsSync(path));
}
