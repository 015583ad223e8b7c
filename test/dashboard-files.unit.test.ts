import { readFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';

const dist = new URL('../apps/dashboard/dist/', import.meta.url);
const FILES = ['index.html', 'app.js', 'app.css', 'icon.svg'];
const MOST_BYTES = 150 * 1024;

test('the files of the dashboard have at most 150 KB when compressed', async () => {
  const sizes = await Promise.all(FILES.map(async (name) => gzipSync(await readFile(new URL(name, dist))).length));
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  expect(bytes).toBeLessThanOrEqual(MOST_BYTES);
  // The control: an empty file would be small, too.
  expect(bytes).toBeGreaterThan(20_000);
});

test('the page of the dashboard has no inline script and no inline style', async () => {
  const page = await readFile(new URL('index.html', dist), 'utf8');
  expect(page.match(/<script/g)).toHaveLength(1);
  expect(page).toMatch(/<script[^>]* src="dashboard\/app\.js"><\/script>/);
  expect(page).not.toMatch(/<style|style=|\son\w+=|javascript:/i);
});
