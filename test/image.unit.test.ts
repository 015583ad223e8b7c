import { execFile } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';
import { eventually } from './support/wait.js';

/* The image's packages, as the Dockerfile's npm ci installs them from package-lock.json. */

const root = fileURLToPath(new URL('..', import.meta.url));
const run = promisify(execFile);

interface Installed {
  version?: string;
  dependencies?: Record<string, Installed>;
}

interface Locked {
  dev?: boolean;
  optional?: boolean;
  devOptional?: boolean;
}

/** The arguments of the Dockerfile's second npm ci. */
async function installArguments(): Promise<string[]> {
  const text = (await readFile(`${root}/Dockerfile`, 'utf8')).replaceAll('\\\n', ' ');
  const [line = ''] = /npm ci --omit.*/.exec(text) ?? [];
  return line.trim().split(/\s+/).slice(2);
}

/** The names of all packages that end up in the image. */
async function packagesOfImage(): Promise<string[]> {
  const args = (await installArguments()).filter((arg) => !['--no-audit', '--no-fund'].includes(arg));
  const { stdout } = await run('npm', ['ls', '--package-lock-only', '--all', '--json', ...args], {
    cwd: root,
    maxBuffer: 64 * 1024 * 1024,
  });
  const { packages }: { packages: Record<string, Locked> } = JSON.parse(
    await readFile(`${root}/package-lock.json`, 'utf8'),
  );
  const found = new Set<string>();
  const collect = (dependencies: Record<string, Installed> = {}): void => {
    for (const [name, { version, dependencies: own }] of Object.entries(dependencies)) {
      // Without a version it is an optional peer that nobody installs.
      if (version === undefined) continue;
      // npm ls lists these, and npm ci omits them.
      const { dev, optional, devOptional } = packages[`node_modules/${name}`] ?? {};
      if (dev !== true && optional !== true && devOptional !== true) found.add(name);
      collect(own);
    }
  };
  collect((JSON.parse(stdout) as Installed).dependencies);
  return [...found].toSorted();
}

test('the image holds the packages of its programs, and no compiler, chart, histogram or CLI framework', async () => {
  const names = await packagesOfImage();
  expect(names.filter((name) => name.startsWith('@rowmq/'))).toEqual([
    '@rowmq/broker',
    '@rowmq/contract',
    '@rowmq/dashboard',
    '@rowmq/migrate',
    '@rowmq/migrations',
    '@rowmq/mysql-server',
    '@rowmq/reaper',
    '@rowmq/runtime',
    '@rowmq/store',
  ]);
  // The control: if the list were cut short, the next expectation would hold of anything.
  expect(names).toEqual(expect.arrayContaining(['@nestjs/core', 'fastify', 'mysql2', 'typeorm', 'zod']));
  const unwanted = new Set([
    'commander',
    'hdr-histogram-js',
    'playwright-core',
    'typescript',
    'uplot',
    'vite',
    'vitest',
  ]);
  expect(names.filter((name) => unwanted.has(name))).toEqual([]);
});

test('the image installs no development packages, and copies no tool but the one for database servers', async () => {
  expect(await installArguments()).toEqual(expect.arrayContaining(['--omit=dev', '--omit=optional']));
  const text = await readFile(`${root}/Dockerfile`, 'utf8');
  expect([...text.matchAll(/^COPY --from=build \/app\/tools\S* (\S+)$/gm)].map(([, path]) => path)).toEqual([
    'tools/mysql-server',
  ]);
});

test('npm 11 does not run the install script of @scarf/scarf, the only package that has one', async () => {
  const { packages }: { packages: Record<string, { hasInstallScript?: boolean; dev?: boolean; optional?: boolean }> } =
    JSON.parse(await readFile(`${root}/package-lock.json`, 'utf8'));
  const withScript = Object.entries(packages)
    .filter(([, { hasInstallScript, optional }]) => hasInstallScript === true && optional !== true)
    .map(([path]) => path.replace('node_modules/', ''));
  expect(withScript).toEqual(['@scarf/scarf']);
  const { allowScripts } = JSON.parse(await readFile(`${root}/package.json`, 'utf8')) as {
    allowScripts: Record<string, boolean>;
  };
  expect(allowScripts).toEqual({ '@scarf/scarf': false });
});

test('the install script of @scarf/scarf, which npm 10 runs, reports nothing with the settings of this repository', async () => {
  // The script gives npm ls three seconds for the tree, so the project has nothing else.
  const project = await mkdtemp(join(tmpdir(), 'rowmq-scarf-'));
  onTestFinished(async () => rm(project, { recursive: true, force: true }));
  const { scarfSettings } = JSON.parse(await readFile(`${root}/package.json`, 'utf8')) as { scarfSettings: unknown };
  const dependencies = { '@scarf/scarf': '*' };
  await writeFile(join(project, 'package.json'), JSON.stringify({ name: 'as-here', dependencies, scarfSettings }));
  const scarf = join(project, 'node_modules/@scarf/scarf');
  await cp(`${root}/node_modules/@scarf/scarf`, scarf, { recursive: true });
  const reports: string[] = [];
  const server = createServer((request, response) => {
    reports.push(request.url ?? '');
    response.end();
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  try {
    const { DO_NOT_TRACK: _, SCARF_ANALYTICS: __, SCARF_NO_ANALYTICS: ___, ...env } = process.env;
    const { port } = server.address() as AddressInfo;
    const report = async (): Promise<string> => {
      const { stdout, stderr } = await run(process.execPath, ['report.js'], {
        cwd: scarf,
        env: { ...env, INIT_CWD: project, SCARF_LOCAL_PORT: String(port), SCARF_VERBOSE: 'true' },
      });
      return stdout + stderr;
    };
    // A busy machine may exceed them even so.
    const isDisabled = async (): Promise<boolean> => (await report()).includes('disabled via a package.json');
    await eventually('the script reads scarfSettings', isDisabled, 120_000);
  } finally {
    server.close();
  }
  expect(reports).toEqual([]);
});
