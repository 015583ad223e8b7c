import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const FOLDERS = ['bench', 'docs', 'examples', 'libs', 'test'];

/** A fenced block of a page. */
export interface Block {
  page: string;
  language: string;
  text: string;
}

/**
 * A shell block that no test runs as written, the test that covers it instead, and the reason. Its
 * page and its first line identify it.
 */
export interface Exception {
  page: string;
  firstLine: string;
  coveredBy: string;
  because: string;
}

/**
 * All other shell blocks talk to a broker, and `docs-commands.test.ts` runs them as written, or
 * `cli-docs.test.ts` if they call `rowmq`. If you
 * add a block that does not, write a test that runs it, and name the test here.
 */
export const NOT_RUN_AS_WRITTEN: readonly Exception[] = [
  {
    page: 'README.md',
    firstLine: 'npm start',
    coveredBy: 'test/e2e/start.test.ts',
    because:
      'it runs scripts/start.mjs, as npm start does, without npm between, whose signals and exit codes are its own',
  },
  { page: 'README.md', firstLine: 'npm test', coveredBy: 'scripts/test.mjs', because: 'it is what runs these tests' },
  {
    page: 'docs/operations.md',
    firstLine: 'npm run simulate -- ',
    coveredBy: 'test/e2e/simulator.test.ts',
    because: 'it runs the same program, shorter; that the options exist is tested beside this list',
  },
  {
    page: 'docs/dashboard.md',
    firstLine: 'rowmq --url $ROWMQ send orders',
    coveredBy: 'test/e2e/dashboard-newcomer.test.ts',
    because: 'it runs them between the clicks that the page describes',
  },
  {
    page: 'docs/faults.md',
    firstLine: 'npm run test:faults -- ',
    coveredBy: 'test/faults/campaign/campaign.test.ts',
    because: 'it is the same with some seconds for each fault',
  },
  {
    page: 'docs/high-availability.md',
    firstLine: 'npm run ha:up',
    coveredBy: 'test/ha/ha-up.test.ts',
    because: 'it runs the same program, without npm between',
  },
  {
    page: 'docs/operations.md',
    firstLine: 'npm ci',
    coveredBy: 'scripts/prepare.mjs',
    because: 'both are done there, before any test: what the tests run was made by them',
  },
  {
    page: 'docs/operations.md',
    firstLine: 'npm run --silent key:create',
    coveredBy: 'test/e2e/keys-trouble.test.ts',
    because: 'it runs the same program on a database of its own, without npm between',
  },
  ...["node -p 'encodeURIComponent", 'export ROWMQ_DATABASE_URL='].map((firstLine) => ({
    page: 'docs/operations.md',
    firstLine,
    coveredBy: 'test/e2e/docs-operations.test.ts',
    because: 'it runs them with the address, the names and the password of a database of its own',
  })),
  {
    page: 'examples/orders/README.md',
    firstLine: 'npm run example:orders',
    coveredBy: 'test/e2e/example-orders.test.ts',
    because: 'it runs the same program, without npm between',
  },
  {
    page: 'examples/orders/README.md',
    firstLine: 'curl -fsS http://127.0.0.1:3000/orders',
    coveredBy: 'test/e2e/example-orders.test.ts',
    because: 'it runs it with a port that is free',
  },
  {
    page: 'libs/client/README.md',
    firstLine: 'npm pack -w @rowmq/client',
    coveredBy: 'test/e2e/published-packages.test.ts',
    because: 'it packs and installs the same in a folder of its own',
  },
  {
    page: 'libs/typeorm/README.md',
    firstLine: 'npm pack -w @rowmq/typeorm',
    coveredBy: 'test/e2e/published-packages.test.ts',
    because: 'it packs and installs the same in a folder of its own',
  },
  {
    page: 'test/model/README.md',
    firstLine: 'npm run test:model',
    coveredBy: 'test/model/lease-protocol.test.ts',
    because: 'it is the same with fewer histories',
  },
  {
    page: 'test/model/README.md',
    firstLine: 'npm run test:model -- --server mysql --seed',
    coveredBy: 'test/model/lease-protocol.test.ts',
    because: 'the seed is made up',
  },
];

/**
 * The entry of a block in {@link NOT_RUN_AS_WRITTEN}: the one with the longest matching first line.
 */
export function exceptionOf({ page, text }: Block): Exception | undefined {
  return NOT_RUN_AS_WRITTEN.filter((one) => one.page === page && text.startsWith(one.firstLine)).toSorted(
    (one, other) => other.firstLine.length - one.firstLine.length,
  )[0];
}

/** Whether `cli-docs.test.ts` runs a block. */
export function speaksToCli({ text }: Block): boolean {
  return /^rowmq /m.test(text);
}

/** Every page of the documentation, by its path in the repository. */
export async function pages(): Promise<string[]> {
  const found = await Promise.all(
    FOLDERS.map(async (folder) =>
      (await readdir(join(ROOT, folder), { recursive: true })).map((path) => join(folder, path)),
    ),
  );
  return ['README.md', ...found.flat().filter((path) => path.endsWith('.md') && !path.includes('node_modules'))];
}

export async function readPage(page: string): Promise<string> {
  return readFile(join(ROOT, page), 'utf8');
}

/**
 * A page's fenced blocks of one language, or of all, without the indentation of a list around them.
 */
export async function blocksOf(page: string, language?: string): Promise<Block[]> {
  const found = (await readPage(page)).matchAll(/^( *)```(\w*)\n([^]*?)^\1```$/gm);
  return [...found]
    .map(([, indent = '', of = '', text = '']) => ({
      page,
      language: of,
      text: text.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
    }))
    .filter((block) => language === undefined || block.language === language);
}
