import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const RULE = 'no-restricted-imports';

interface Boundary {
  /** A file in the folder that the boundary protects. */
  readonly file: string;
  readonly allowed: readonly string[];
  readonly forbidden: readonly string[];
}

const OUT_OF_PACKAGE = ['../../../libs/contract/src/index.js', '../../store/dist/index.js'];

const BOUNDARIES: readonly Boundary[] = [
  {
    file: 'libs/contract/src/x.ts',
    allowed: ['zod', './errors.js'],
    forbidden: ['@rowmq/runtime', '@rowmq/store', 'mysql2', 'typeorm', ...OUT_OF_PACKAGE],
  },
  {
    file: 'libs/runtime/src/x.ts',
    allowed: ['zod', './settings.js'],
    forbidden: ['@rowmq/contract', '@rowmq/broker', 'mysql2/promise', ...OUT_OF_PACKAGE],
  },
  {
    file: 'libs/client/src/queue/x.ts',
    allowed: ['@rowmq/contract', '../core.js'],
    forbidden: [
      '@rowmq/store',
      '@rowmq/store/enqueue',
      '@rowmq/runtime',
      '@rowmq/broker',
      'typeorm',
      ...OUT_OF_PACKAGE,
    ],
  },
  {
    file: 'libs/typeorm/src/x.ts',
    allowed: ['@rowmq/contract', '@rowmq/store/enqueue', 'typeorm'],
    forbidden: ['@rowmq/client', '@rowmq/reaper', ...OUT_OF_PACKAGE],
  },
  {
    file: 'libs/store/src/messages/x.ts',
    allowed: [
      '@rowmq/contract',
      '@rowmq/runtime',
      '@rowmq/migrations',
      'mysql2/promise',
      'typeorm',
      '../database/hex.js',
    ],
    forbidden: [
      '@rowmq/client',
      '@rowmq/broker',
      '@rowmq/mysql-server',
      '../../../../migrations/src/index.js',
      ...OUT_OF_PACKAGE,
    ],
  },
  {
    file: 'migrations/src/x.ts',
    allowed: ['typeorm'],
    forbidden: ['@rowmq/store', '@rowmq/contract', '../../libs/contract/src/index.js'],
  },
  {
    file: 'apps/broker/src/messages/x.ts',
    allowed: ['@rowmq/contract', '@rowmq/runtime', '@rowmq/store', '../metrics/metrics.js'],
    forbidden: [
      '@rowmq/reaper',
      '@rowmq/client',
      '@rowmq/mysql-server',
      '@nestjs/typeorm',
      'mysql2',
      ...OUT_OF_PACKAGE,
    ],
  },
  {
    file: 'apps/reaper/src/duties/x.ts',
    allowed: ['@rowmq/contract', '@rowmq/runtime', '@rowmq/store', '../batches.js'],
    forbidden: ['@rowmq/broker', '@rowmq/launcher', 'typeorm', '../../../broker/src/main.js'],
  },
  {
    file: 'tools/mysql-server/src/x.ts',
    allowed: ['@rowmq/runtime', 'mysql2/promise'],
    forbidden: ['@rowmq/store', '@rowmq/launcher', ...OUT_OF_PACKAGE],
  },
  {
    file: 'tools/launcher/src/x.ts',
    allowed: ['@rowmq/mysql-server', '@rowmq/runtime', '@rowmq/store'],
    forbidden: ['@rowmq/broker', '@rowmq/simulator', 'mysql2/promise', ...OUT_OF_PACKAGE],
  },
  {
    file: 'tools/simulator/src/x.ts',
    allowed: ['@rowmq/client/core', '@rowmq/contract', '@rowmq/runtime'],
    forbidden: ['@rowmq/store', '@rowmq/broker', 'mysql2', '../../../test/support/wait.js'],
  },
  {
    file: 'examples/orders/src/x.ts',
    allowed: ['@rowmq/client'],
    forbidden: ['@rowmq/store', '@rowmq/contract', 'mysql2', '../../../libs/client/src/index.js'],
  },
];

/** What oxlint says of the file that holds one import of one boundary. */
interface Finding {
  readonly file: string;
  readonly message: string;
}

let folder: string;
const imports = BOUNDARIES.flatMap(({ file, allowed, forbidden }) => [
  ...allowed.map((path) => ({ file, path, isAllowed: true })),
  ...forbidden.map((path) => ({ file, path, isAllowed: false })),
]).map((one, index) => ({ ...one, name: one.file.replace('x.ts', `x${index}.ts`) }));
let findings: readonly Finding[];

// One run of oxlint over a folder that has the repository's layout, its lint settings, and one import in every file.
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-boundaries-'));
  await copyFile(join(root, '.oxlintrc.json'), join(folder, '.oxlintrc.json'));
  for (const { name, path } of imports) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), `import { x } from '${path}';\nconsole.log(x);\n`);
  }
  findings = await lint();
});

afterAll(() => rm(folder, { recursive: true, force: true }));

test.each(imports.filter(({ isAllowed }) => !isAllowed))('lint fails when $file imports $path', ({ name }) => {
  expect(findings.filter(({ file }) => file === name)).toHaveLength(1);
});

test.each(imports.filter(({ isAllowed }) => isAllowed))('lint passes when $file imports $path', ({ name }) => {
  expect(findings.filter(({ file }) => file === name)).toEqual([]);
});

test('the boundaries test breaks every import rule of .oxlintrc.json', async () => {
  const { overrides } = JSON.parse(await readFile(join(root, '.oxlintrc.json'), 'utf8')) as {
    overrides: { files: [string]; rules: { [RULE]: [string, { patterns: { message: string }[] }] } }[];
  };
  const seen = new Set(findings.map(({ file, message }) => `${folderOf(file)}: ${message}`));
  const rules = overrides.flatMap(({ files: [glob], rules: { [RULE]: rule } }) =>
    rule[1].patterns.map(({ message }) => `${glob}: ${message}`),
  );
  expect(rules.filter((rule) => !seen.has(rule))).toEqual([]);

  /** The narrowest glob of the lint settings that covers the file: the settings that come last win. */
  function folderOf(file: string): string | undefined {
    return overrides.findLast(({ files: [glob] }) => file.startsWith(glob.replace('**', '')))?.files[0];
  }
});

async function lint(): Promise<Finding[]> {
  const output = await new Promise<string>((resolve) => {
    // The exit code is 1: there are findings.
    execFile(
      process.execPath,
      [join(root, 'node_modules/oxlint/bin/oxlint'), '--format=json'],
      { cwd: folder },
      (_, stdout) => resolve(stdout),
    );
  });
  const { diagnostics } = JSON.parse(output) as { diagnostics: { code: string; filename: string; help: string }[] };
  return diagnostics
    .filter(({ code }) => code.includes(RULE))
    .map(({ filename, help }) => ({ file: filename, message: help }));
}
