import { execFile, execFileSync } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterAll, beforeAll, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const RULE = 'no-restricted-imports';

interface Boundary {
  /** A file in the folder that the boundary protects. */
  readonly file: string;
  readonly allowed: readonly string[];
  readonly forbidden: readonly string[];
  /** The same for `import type`. */
  readonly types?: { readonly allowed: readonly string[]; readonly forbidden: readonly string[] };
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
    allowed: ['@rowmq/contract', '@rowmq/contract/producer', '../core.js'],
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
    file: 'apps/broker/src/x.ts',
    allowed: ['@rowmq/store', './messages/messages.module.js', './queues/queues.module.js'],
    forbidden: [
      '@rowmq/reaper',
      '@rowmq/dashboard',
      '../../dashboard/src/format.js',
      '../../dashboard/dist/index.js',
      'mysql2',
      ...OUT_OF_PACKAGE,
    ],
  },
  {
    file: 'apps/broker/src/http/x.ts',
    allowed: ['@rowmq/contract', './api-call.js'],
    forbidden: [
      ...['messages/messages.service', 'queues/queues.service', 'metrics/metrics', 'health/health.controller'].map(
        (path) => `../${path}.js`,
      ),
      '@rowmq/reaper',
      'mysql2',
      ...OUT_OF_PACKAGE,
    ],
  },
  {
    file: 'apps/broker/src/metrics/x.ts',
    allowed: ['@rowmq/store', '../http/api-call.js'],
    forbidden: [
      '../messages/messages.service.js',
      '../queues/queues.service.js',
      '../peers/peers.service.js',
      '@rowmq/reaper',
      'typeorm',
      ...OUT_OF_PACKAGE,
    ],
  },
  {
    file: 'apps/broker/src/queues/x.ts',
    allowed: ['../messages/message.codec.js', '../metrics/metrics.js', '../http/api-call.js'],
    forbidden: [
      '../health/health.controller.js',
      '../peers/peers.service.js',
      '@rowmq/client',
      'mysql2',
      ...OUT_OF_PACKAGE,
    ],
  },
  {
    file: 'apps/broker/src/topics/x.ts',
    allowed: ['../messages/batcher.js', '../metrics/metrics.js', '../http/api-call.js'],
    forbidden: [
      '../queues/queues.service.js',
      '../peers/peers.service.js',
      '@rowmq/client',
      'mysql2',
      ...OUT_OF_PACKAGE,
    ],
  },
  {
    file: 'apps/broker/src/sqs/x.ts',
    allowed: ['../messages/messages.service.js', '../queues/queues.service.js', '../jobs/jobs.service.js'],
    forbidden: [
      '../topics/publish.service.js',
      '../peers/peers.service.js',
      '@rowmq/client',
      'mysql2',
      ...OUT_OF_PACKAGE,
    ],
  },
  {
    file: 'apps/broker/src/audit/x.ts',
    allowed: ['../http/caller.js', '../messages/message.codec.js', '@rowmq/store'],
    forbidden: ['../keys/known-keys.js', '../peers/peers.service.js', '@rowmq/reaper', 'mysql2', ...OUT_OF_PACKAGE],
  },
  {
    file: 'apps/broker/src/keys/x.ts',
    allowed: ['../http/caller.js', '../messages/message.codec.js', '@rowmq/store'],
    forbidden: [
      '../queues/queues.service.js',
      '../peers/peers.service.js',
      '@rowmq/reaper',
      'mysql2',
      ...OUT_OF_PACKAGE,
    ],
  },
  {
    file: 'apps/broker/src/health/x.ts',
    allowed: ['../http/api-call.js', '@rowmq/store'],
    forbidden: [
      '../messages/messages.service.js',
      '../metrics/metrics.js',
      '@rowmq/client',
      'mysql2',
      ...OUT_OF_PACKAGE,
    ],
  },
  {
    file: 'apps/broker/src/messages/x.ts',
    allowed: ['../http/api-call.js', '@rowmq/contract', '@rowmq/runtime', '@rowmq/store', '../metrics/metrics.js'],
    forbidden: [
      '../queues/queues.service.js',
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
    file: 'apps/cli/src/x.ts',
    allowed: ['@rowmq/client/core', '@rowmq/contract', '@rowmq/load', '@rowmq/store/doctor', './session.js'],
    forbidden: ['@rowmq/store', '@rowmq/store/enqueue', '@rowmq/broker', 'mysql2/promise', ...OUT_OF_PACKAGE],
  },
  {
    file: 'apps/dashboard/src/pages/x.ts',
    allowed: ['preact', 'preact/hooks', '@preact/signals', 'uplot', '@rowmq/contract/reaches', '../api.js'],
    forbidden: [
      '@rowmq/contract',
      '@rowmq/contract/producer',
      '@rowmq/store',
      '@rowmq/runtime',
      '@rowmq/broker',
      'node:crypto',
      'fs',
      'path/posix',
      'mysql2',
      '@nestjs/common',
      '../../../broker/src/main.js',
      ...OUT_OF_PACKAGE,
    ],
    types: { allowed: ['@rowmq/contract'], forbidden: ['@rowmq/store', '@rowmq/client', 'node:fs'] },
  },
  {
    file: 'tools/mysql-server/src/x.ts',
    allowed: ['@rowmq/runtime', 'mysql2/promise'],
    forbidden: ['@rowmq/store', '@rowmq/launcher', ...OUT_OF_PACKAGE],
  },
  {
    file: 'tools/launcher/src/x.ts',
    allowed: ['@rowmq/contract', '@rowmq/mysql-server', '@rowmq/runtime', '@rowmq/store'],
    forbidden: ['@rowmq/broker', '@rowmq/simulator', 'mysql2/promise', ...OUT_OF_PACKAGE],
  },
  {
    file: 'tools/load/src/x.ts',
    allowed: ['./load.js', 'node:timers/promises'],
    forbidden: ['@rowmq/client', 'mysql2', ...OUT_OF_PACKAGE],
  },
  {
    file: 'tools/simulator/src/x.ts',
    allowed: ['@rowmq/load', '@rowmq/client/core', '@rowmq/contract', '@rowmq/runtime'],
    forbidden: ['@rowmq/store', '@rowmq/broker', 'mysql2', '../../../test/support/wait.js'],
  },
  {
    file: 'examples/orders/src/x.ts',
    allowed: ['@rowmq/client'],
    forbidden: ['@rowmq/store', '@rowmq/contract', 'mysql2', '../../../libs/client/src/index.js'],
  },
  {
    file: 'examples/transactions/src/x.ts',
    allowed: ['@rowmq/typeorm', '@rowmq/typeorm/adapter', 'mysql2/promise', 'typeorm'],
    forbidden: ['@rowmq/store', '@rowmq/contract', '../../../libs/typeorm/src/index.js'],
  },
  {
    file: 'bench/x.ts',
    allowed: ['@rowmq/store', '../test/support/api.js'],
    forbidden: ['@rowmq/dashboard', '../apps/dashboard/src/format.js'],
  },
  {
    file: 'scripts/x.ts',
    allowed: ['node:fs', '../test/support/chromium-paths.json'],
    forbidden: ['@rowmq/dashboard', '../apps/dashboard/vite.config.js'],
  },
  {
    file: 'test/e2e/x.ts',
    allowed: ['@rowmq/store', '../support/dashboard.js', '../../apps/reaper/src/batches.js'],
    forbidden: ['@rowmq/dashboard', '@rowmq/dashboard/src/format.js', '../../apps/dashboard/src/format.js'],
  },
];

/** A finding of oxlint in a file that holds one import. */
interface Finding {
  readonly file: string;
  readonly message: string;
}

/**
 * A path in `import()`, or in the type `import('…')`. The rule no-restricted-imports sees neither,
 * and oxlint has no other rule for them. So the test lints each path again, as a static import.
 */
interface DynamicImport {
  readonly file: string;
  /** Undefined if it is not a literal, so that nobody can check it. */
  readonly path: string | undefined;
}

function dynamicImportsOf(file: string, source: string): DynamicImport[] {
  const found: DynamicImport[] = [];
  const add = (path: ts.Node | undefined): void =>
    void found.push({ file, path: path !== undefined && ts.isStringLiteralLike(path) ? path.text : undefined });
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) add(node.arguments[0]);
    if (ts.isImportTypeNode(node)) add(ts.isLiteralTypeNode(node.argument) ? node.argument.literal : undefined);
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(file, source, ts.ScriptTarget.Latest));
  return found;
}

/** Every dynamic import in the sources of the workspaces. */
async function allDynamicImports(): Promise<DynamicImport[]> {
  const folders = ['apps', 'libs', 'migrations', 'tools', 'examples', 'bench'];
  const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard', ...folders], {
    cwd: root,
    encoding: 'utf8',
  });
  const files = [...new Set(listed.split('\0'))].filter((file) => /(?<!\.d)\.[cm]?tsx?$/.test(file));
  const found = files.map(async (file) => {
    // A file that was deleted and is still in the index has no imports.
    const source = await readFile(join(root, file), 'utf8').catch(() => '');
    return source.includes('import(') ? dynamicImportsOf(file, source) : [];
  });
  return (await Promise.all(found)).flat();
}

let folder: string;
const dynamicImports = (await allDynamicImports()).map((one, index) => ({
  ...one,
  name: one.file.replace(/[^/]+$/, `dynamic${index}.ts`),
}));
const imports = BOUNDARIES.flatMap(({ file, allowed, forbidden, types }) => [
  ...allowed.map((path) => ({ file, path, isAllowed: true, form: 'import' })),
  ...forbidden.map((path) => ({ file, path, isAllowed: false, form: 'import' })),
  ...(types?.allowed ?? []).map((path) => ({ file, path, isAllowed: true, form: 'import type' })),
  ...(types?.forbidden ?? []).map((path) => ({ file, path, isAllowed: false, form: 'import type' })),
]).map((one, index) => ({ ...one, name: one.file.replace('x.ts', `x${index}.ts`) }));
let findings: readonly Finding[];

// One run of oxlint over a folder with the repository's layout and lint settings, and one import in
// every file.
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-boundaries-'));
  await copyFile(join(root, '.oxlintrc.json'), join(folder, '.oxlintrc.json'));
  const all = [...imports, ...dynamicImports.map((one) => ({ ...one, form: 'import' }))];
  for (const { name, path, form } of all) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), `${form} { x } from '${path}';\nconsole.log({} as typeof x);\n`);
  }
  findings = await lint();
});

afterAll(() => rm(folder, { recursive: true, force: true }));

test.each(imports.filter(({ isAllowed }) => !isAllowed))('lint fails when $file has an $form of $path', ({ name }) => {
  expect(findings.filter(({ file }) => file === name)).toHaveLength(1);
});

test.each(imports.filter(({ isAllowed }) => isAllowed))('lint passes when $file has an $form of $path', ({ name }) => {
  expect(findings.filter(({ file }) => file === name)).toEqual([]);
});

test.each(dynamicImports)('lint would pass if the import() of $path in $file were static', ({ name, path }) => {
  expect(path).toBeTypeOf('string');
  expect(findings.filter(({ file }) => file === name)).toEqual([]);
});

test('the boundaries test finds import(), the types of modules, and paths that are no literals', () => {
  const source = `
    const { x } = await import('@rowmq/store');
    type Store = typeof import('../store.js');
    const load = (path: string) => import(path);
    // import('in a comment')
    const text = "import('in a string')";
  `;
  expect(dynamicImportsOf('x.ts', source).map(({ path }) => path)).toEqual(['@rowmq/store', '../store.js', undefined]);
  expect(dynamicImports).toContainEqual(expect.objectContaining({ file: 'apps/broker/src/main.ts' }));
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

  /** The glob whose settings apply to the file: the last one that covers it. */
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
