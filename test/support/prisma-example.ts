import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { exists } from '../../tools/mysql-server/src/data-folder.js';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const EXAMPLE = join(ROOT, 'examples', 'transactions', 'prisma');
const OURS = join(ROOT, '.rowmq-test');

/**
 * Copies examples/transactions/prisma, generates Prisma's client in the copy, and returns the
 * copy's folder.
 *
 * Prisma is no dependency of the repository, because it has 300 MB, and its install script
 * downloads programs. The first test that needs it installs it below `.rowmq-test`.
 */
export async function preparePrismaExample(): Promise<string> {
  const folder = await mkdtemp(join(await installPrisma(), 'example-'));
  await cp(EXAMPLE, folder, { recursive: true, filter: (path) => !/\/(generated|node_modules)$/.test(path) });
  await run(join('..', 'node_modules', '.bin', 'prisma'), ['generate', '--schema', 'schema.prisma'], {
    cwd: folder,
    env: {
      ...process.env,
      CHECKPOINT_DISABLE: '1',
      // It would download this program, which it does not run. Any program does.
      PRISMA_SCHEMA_ENGINE_BINARY: process.execPath,
    },
    timeout: 60_000,
  });
  return folder;
}

/** The compiler refuses the client itself, whose statements would run outside the transaction. */
const REFUSED = `
import type { PrismaClient } from './generated/client.js';
import { orders } from './orders.js';

declare const client: PrismaClient;
// @ts-expect-error -- it is not a transaction
void orders.enqueue(client, { article: 'tea' });
`;

/** Compiles a copy. Throws with the compiler's messages. */
export async function expectPrismaExampleToCompile(folder: string): Promise<void> {
  await writeFile(join(folder, 'refused.ts'), REFUSED);
  // The declarations of the last build are fewer files than all sources.
  const compilerOptions = { incremental: false, tsBuildInfoFile: null, customConditions: [] };
  const config = { extends: join(ROOT, 'tsconfig.json'), compilerOptions, include: ['*.ts'], exclude: [] };
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config));
  const tsc = join(ROOT, 'node_modules', '.bin', 'tsc');
  await run(tsc, ['-p', folder]).catch((error: { stdout: string }) => {
    throw new Error(error.stdout);
  });
}

/** Returns the folder above Prisma's `node_modules`. */
async function installPrisma(): Promise<string> {
  const manifest = join(EXAMPLE, 'package.json');
  const { devDependencies } = JSON.parse(await readFile(manifest, 'utf8')) as { devDependencies: { prisma: string } };
  const folder = join(OURS, `prisma-${devDependencies.prisma}`);
  if (await exists(folder)) return folder;
  await mkdir(OURS, { recursive: true });
  const unfinished = await mkdtemp(join(OURS, 'prisma.'));
  await cp(manifest, join(unfinished, 'package.json'));
  const quietly = ['--no-audit', '--no-fund', '--loglevel=error', '--prefer-offline', '--no-package-lock'];
  await run('npm', ['install', '--ignore-scripts', ...quietly], { cwd: unfinished, timeout: 240_000 });
  // The tests of another kind of server may have been faster.
  await rename(unfinished, folder).catch(async (error: unknown) => {
    await rm(unfinished, { recursive: true });
    if (!(await exists(folder))) throw error;
  });
  return folder;
}
