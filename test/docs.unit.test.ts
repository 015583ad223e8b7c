import { execFile } from 'node:child_process';
import { access, readFile } from 'node:fs/promises';
import { posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { KNOWN_SETTINGS } from '@rowmq/runtime';
import { describe, expect, test } from 'vitest';
import { readBrokerConfig } from '../apps/broker/src/broker.config.js';
import { haWelcome } from '../tools/launcher/src/ha/ha-welcome.js';
import { readLauncherConfig } from '../tools/launcher/src/launcher.config.js';
import { readReaperConfig } from '../apps/reaper/src/reaper.config.js';
import { readSimulatorSettings } from '../tools/simulator/src/simulator.config.js';
import { consumerSettings } from '../libs/client/src/consumer/consumer-options.js';
import { type Block, blocksOf, exceptionOf, NOT_RUN_AS_WRITTEN, pages, readPage, speaksToCli } from './support/docs.js';

const root = new URL('../', import.meta.url);
const run = promisify(execFile);
const PAGES = await pages();
const BLOCKS = (await Promise.all(PAGES.map((page) => blocksOf(page)))).flat();
const SHELL = BLOCKS.filter(({ language }) => language === 'sh');

const exists = async (path: string): Promise<boolean> =>
  access(new URL(path, root)).then(
    () => true,
    () => false,
  );

const textOf = async (path: string): Promise<string> => readFile(new URL(path, root), 'utf8');

/** The headings of a page as links name them. */
function headingsOf(text: string): string[] {
  return [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    (heading as string)
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}_ -]/gu, '')
      .replaceAll(' ', '-'),
  );
}

describe('a page', () => {
  test('has no shell block that no test covers', () => {
    expect(SHELL.length).toBeGreaterThan(20);
    const isRun = (block: Block): boolean => block.text.includes('curl') || speaksToCli(block);
    const uncovered = SHELL.filter((block) => !isRun(block) && exceptionOf(block) === undefined);
    expect(uncovered, 'run them in a test, and name it in NOT_RUN_AS_WRITTEN of test/support/docs.ts').toEqual([]);
  });

  test('has its blocks in languages that tests look for', () => {
    for (const { page, language, text } of BLOCKS) {
      // A drawing.
      if (language === '') expect(text, page).not.toMatch(/^\s*(?:\$|npm|npx|node|curl|docker|mysql) /m);
      else expect(['sh', 'ts', 'sql', 'yaml', 'mermaid'], `${page}: ${text}`).toContain(language);
      // docs-operations.test.ts runs these.
      if (['sql', 'yaml'].includes(language)) expect(page).toBe('docs/operations.md');
    }
  });

  test.each(NOT_RUN_AS_WRITTEN)('$page: $firstLine is there once, and so is what covers it', async (exception) => {
    expect(SHELL.filter((block) => exceptionOf(block) === exception)).toHaveLength(1);
    expect(await exists(exception.coveredBy)).toBe(true);
  });

  test.each(PAGES)('%s names scripts and programs that are there', async (page) => {
    const text = await readPage(page);
    const { scripts } = JSON.parse(await textOf('package.json')) as { scripts: Record<string, string> };
    for (const [command, name] of text.matchAll(/npm run (?:--silent )?([a-z][\w:]*)/g))
      expect(Object.keys(scripts), command).toContain(name);
    for (const [command, workspace, program] of text.matchAll(/node ([\w/-]+)\/dist\/([\w/-]+)\.js/g))
      expect(await exists(`${workspace}/src/${program}.ts`), command).toBe(true);
  });

  test.each(PAGES)('%s links to pages and headings that are there', async (page) => {
    const text = (await readPage(page)).replaceAll(/^( *)```[^]*?^\1```$/gm, '');
    for (const [link, target] of text.matchAll(/\]\((?!https?:)([^)\s]+)\)/g)) {
      const [path, heading] = (target as string).split('#');
      const linked = path === '' ? page : posix.join(posix.dirname(page), path as string);
      expect(await exists(linked), `${page}: ${link}`).toBe(true);
      if (heading !== undefined) expect(headingsOf(await readPage(linked)), `${page}: ${link}`).toContain(heading);
    }
  });

  test.each(['deadlocks', 'faults', 'ha', 'model'])('npm run test:%s prints its options for --help', async (suite) => {
    const command = ['scripts/test-suite.mjs', suite, '--help'];
    const { stdout } = await run(process.execPath, command, { cwd: fileURLToPath(root) });
    expect(stdout).toContain(`usage: npm run test:${suite}`);
  });

  test('asks the simulator for what it knows', async () => {
    const group = { members: [] } as unknown as Parameters<typeof haWelcome>[1];
    const printed = haWelcome(['http://127.0.0.1:8080', 'http://127.0.0.1:8081'], group, true);
    const texts = [...(await Promise.all(PAGES.map(readPage))), printed];
    const lines = texts.flatMap((text) =>
      [...text.matchAll(/^\s*npm run simulate -- (.*)$/gm)].map(([, args]) => args),
    );
    expect(lines).toHaveLength(2);
    for (const line of lines) {
      const args = (line as string).split(' ').map((word) => word.replaceAll('"', ''));
      expect(readSimulatorSettings(args, {}).producers).toBeGreaterThan(0);
    }
  });

  test.each(['client', 'typeorm'])('libs/%s names the tarball that is made', async (library) => {
    const { version } = JSON.parse(await textOf('package.json')) as { version: string };
    expect(await readPage(`libs/${library}/README.md`)).toContain(`npm install ./rowmq-${library}-${version}.tgz`);
  });
});

describe('docs/operations.md', () => {
  const URL_SETTING = { ROWMQ_DATABASE_URL: 'mysql://u:p@h:3306/d' };
  const readers = [readBrokerConfig, readReaperConfig, readLauncherConfig];

  /** The processes' answer to the value of a setting. */
  function faultsOf(setting: string, value: string): string {
    return readers
      .map((read) => {
        try {
          read({ ...URL_SETTING, [setting]: value });
          return undefined;
        } catch (error) {
          return (error as Error).message;
        }
      })
      .filter((fault) => fault !== undefined)
      .join('\n');
  }

  test('lists every setting that there is', async () => {
    const text = await readPage('docs/operations.md');
    const rows = [...text.matchAll(/^\| `(ROWMQ_[A-Z_]+)` \|/gm)].map(([, name]) => name as string);
    expect(rows.toSorted()).toEqual([...KNOWN_SETTINGS].toSorted());
    const named = new Set([...text.matchAll(/\b(ROWMQ_[A-Z_]+)/g)].map(([, name]) => name as string));
    expect([...named].filter((name) => !(KNOWN_SETTINGS as readonly string[]).includes(name))).toEqual([]);
  });

  test('says the range of each number', async () => {
    const text = await readPage('docs/operations.md');
    const rows = [...text.matchAll(/^\| `(ROWMQ_[A-Z_]+)` \|[^|]*\|[^|]*\| ([^|]*) \|/gm)];
    const numbers = rows.filter(([, setting]) =>
      faultsOf(setting as string, 'none').includes('must be a whole number'),
    );
    expect(numbers.length).toBeGreaterThan(13);
    for (const [, setting, range] of numbers) {
      const [from, to] = (range as string).split(' – ');
      expect(faultsOf(setting as string, String(Number(to) + 1))).toContain(
        `${setting} must be a whole number from ${from} to ${to}`,
      );
    }
    for (const [, setting, range] of rows)
      if (!numbers.some(([, numeric]) => numeric === setting)) expect([setting, range]).toEqual([setting, '–']);
  });

  test('says from which width on partitions are too many', () => {
    expect(faultsOf('ROWMQ_PARTITION_MINUTES', '7')).toContain('more than 400');
    expect(faultsOf('ROWMQ_PARTITION_MINUTES', '8')).toBe('');
  });
});

describe('libs/client/README.md', () => {
  test('says the defaults of a consumer', async () => {
    const text = await readPage('libs/client/README.md');
    const { concurrency, handlerTimeoutSeconds, waitSeconds, shutdownSeconds } = consumerSettings('q', false, {});
    const { unit: batchSize } = consumerSettings('q', true, {});
    for (const [name, value] of Object.entries({
      concurrency,
      batchSize,
      handlerTimeoutSeconds,
      waitSeconds,
      shutdownSeconds,
    }))
      expect(text).toContain(`\n| \`${name}\` | ${value} `);
  });
});

describe('libs/typeorm/README.md', () => {
  test('shows the examples that transactional-adapters.test.ts runs', async () => {
    const shown = (await blocksOf('libs/typeorm/README.md', 'ts')).map(({ text }) => text);
    const paths = ['src/typeorm', 'prisma/orders', 'src/drizzle', 'src/knex', 'src/mysql2'];
    const files = paths.map(async (path) => textOf(`examples/transactions/${path}.ts`));
    expect(shown).toEqual(await Promise.all(files));
  });
});
