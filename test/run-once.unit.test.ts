import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { LONGEST, NEED_CHROMIUM, RUN_ONCE } from './support/run-once.js';

const root = new URL('../', import.meta.url);

test.each([...new Set([...RUN_ONCE, ...NEED_CHROMIUM, ...LONGEST])])(
  '%s, which run-once.ts lists, is a file of tests',
  (path) => {
    expect(existsSync(fileURLToPath(new URL(path, root)))).toBe(true);
  },
);
