import { access, readdir, readFile } from 'node:fs/promises';
import { posix } from 'node:path';
import { KNOWN_SETTINGS } from '@rowmq/runtime';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { readBrokerConfig } from '../apps/broker/src/broker.config.js';
import { readReaperConfig } from '../apps/reaper/src/reaper.config.js';
import { readLauncherConfig } from '../tools/launcher/src/launcher.config.js';

const root = new URL('../', import.meta.url);
const textOf = async (path: string): Promise<string> => readFile(new URL(path, root), 'utf8');
const exists = async (path: string): Promise<boolean> =>
  access(new URL(path, root)).then(
    () => true,
    () => false,
  );

interface Manifest {
  name: string;
  license?: string;
  scripts: Record<string, string>;
}
const manifestOf = async (folder: string): Promise<Manifest> =>
  JSON.parse(await textOf(`${folder}package.json`)) as Manifest;

interface Step {
  uses?: string;
  run?: string;
}
interface Workflow {
  jobs: Record<string, { container: string; strategy: { matrix: { node: string[] } }; steps: Step[] }>;
}
const WORKFLOW = '.github/workflows/ci.yml';

/** The pages that test/docs.unit.test.ts does not read. */
const PAGES = [
  'CHANGELOG.md',
  'CODE_OF_CONDUCT.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  '.github/PULL_REQUEST_TEMPLATE.md',
];

/** The names of the npm scripts that a text calls. */
const fromNpm = (text: string): string[] => {
  const called = [...text.matchAll(/\bnpm (?:run (?:--silent )?([a-z][\w:]*)|(start|test)\b)/g)];
  return called.map(([, script, short]) => (script ?? short) as string);
};

describe('.env.example', () => {
  const settings = async (): Promise<[name: string, value: string][]> =>
    [...(await textOf('.env.example')).matchAll(/^# (ROWMQ_\w+)=(.*)$/gm)].map(([, name, value]) => [
      name as string,
      value as string,
    ]);

  test('it lists every known setting once, and sets none', async () => {
    const names = (await settings()).map(([name]) => name);
    expect(names.toSorted()).toEqual([...KNOWN_SETTINGS].toSorted());
    const set = (await textOf('.env.example')).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    expect(set).toEqual([]);
  });

  test.each([
    { program: 'broker', read: readBrokerConfig },
    { program: 'reaper', read: readReaperConfig },
    { program: 'launcher', read: readLauncherConfig },
  ])('its values are the defaults of the $program', async ({ read }) => {
    const database = { ROWMQ_DATABASE_URL: 'mysql://user:password@localhost:3306/rowmq' };
    const given = Object.fromEntries((await settings()).filter(([, value]) => value !== ''));
    expect(Object.keys(given).length).toBeGreaterThan(10);
    expect(read({ ...given, ...database })).toEqual(read(database));
  });

  test('only settings without one default have no value', async () => {
    const empty = (await settings()).filter(([, value]) => value === '').map(([name]) => name);
    expect(empty.toSorted()).toEqual([
      'ROWMQ_ADMIN_KEY',
      'ROWMQ_ADMIN_KEY_FILE',
      'ROWMQ_ALLOWED_HOSTS',
      'ROWMQ_API_KEYS',
      'ROWMQ_BUFFER_POOL_MB',
      'ROWMQ_DATABASE_POOL_SIZE',
      'ROWMQ_DATABASE_TLS_CA',
      'ROWMQ_DATABASE_URL',
      'ROWMQ_DATABASE_URL_FILE',
      'ROWMQ_EMBEDDED_SERVER',
      'ROWMQ_KEY_LONG_POLLS',
      'ROWMQ_KEY_MESSAGES_PER_SECOND',
      'ROWMQ_OPERATIONS_PORT',
      'ROWMQ_PEER_HOST',
      'ROWMQ_REAPER_PORT',
      'ROWMQ_SERVERS_DIR',
      'ROWMQ_SQS_PUBLIC_URL',
      'ROWMQ_SQS_REGION',
      'ROWMQ_SQS_SECRET_KEY',
      'ROWMQ_SQS_SECRET_KEY_FILE',
      'ROWMQ_TRACES_URL',
      'ROWMQ_TRUSTED_PROXIES',
    ]);
  });
});

describe('the workflow', () => {
  test('each job runs on Node 20, 22 and 24', async () => {
    const { jobs } = parse(await textOf(WORKFLOW)) as Workflow;
    for (const [name, { container, strategy }] of Object.entries(jobs)) {
      expect(strategy.matrix.node, name).toEqual(['20', '22', '24']);
      expect(container, name).toContain('${{ matrix.node }}');
    }
  });

  test('together the jobs run the two commands of the README', async () => {
    const { jobs } = parse(await textOf(WORKFLOW)) as Workflow;
    const runs = Object.values(jobs).flatMap(({ steps }) => steps.flatMap(({ run }) => run ?? []));
    const scripts = await Promise.all(
      runs.flatMap((run) => [...run.matchAll(/\.github\/[\w-]+\.sh/g)].map(async ([path]) => textOf(path))),
    );
    const called = [...runs, ...scripts].flatMap(fromNpm);
    expect(called).toEqual(expect.arrayContaining(['start', 'test']));
    expect(Object.keys((await manifestOf('')).scripts)).toEqual(expect.arrayContaining(called));
  });

  test('the README has commands for its first message', async () => {
    // As .github/first-message.sh finds them.
    const blocks = [...(await textOf('README.md')).matchAll(/^```sh\n([^]*?)^```$/gm)].map(
      ([, block]) => block as string,
    );
    const calls = blocks.filter((block) => block.includes('$ROWMQ/')).join('');
    for (const path of ['/v1/admin/queues/', '/messages ', '/messages/dequeue', '/messages/ack'])
      expect(calls).toContain(path);
  });
});

describe('the files below .github', () => {
  test('each YAML file parses, without a duplicate key', async () => {
    const paths = (await readdir(new URL('.github', root), { recursive: true })).filter((path) =>
      /\.ya?ml$/.test(path),
    );
    expect(paths.length).toBeGreaterThanOrEqual(5);
    for (const path of paths) expect(parse(await textOf(`.github/${path}`)), path).toBeTypeOf('object');
  });

  test.each(['bug', 'idea'])(
    'the form for a %s has a name, a description and fields with ids of their own',
    async (form) => {
      const { name, description, body } = parse(await textOf(`.github/ISSUE_TEMPLATE/${form}.yml`)) as {
        name: string;
        description: string;
        body: { type: string; id?: string; attributes: { label?: string; value?: string } }[];
      };
      expect([name, description].map((text) => text.length > 0)).toEqual([true, true]);
      const fields = body.filter(({ type }) => type !== 'markdown');
      for (const { attributes } of fields) expect(attributes.label).toBeTypeOf('string');
      expect(new Set(fields.map(({ id }) => id)).size).toBe(fields.length);
    },
  );

  test('dependabot looks after npm packages and actions', async () => {
    const { updates } = parse(await textOf('.github/dependabot.yml')) as { updates: Record<string, string>[] };
    expect(updates.map((update) => [update['package-ecosystem'], update['directory']])).toEqual([
      ['npm', '/'],
      ['github-actions', '/'],
    ]);
  });
});

describe('the project', () => {
  test('its licence is the whole Apache License 2.0', async () => {
    const text = await textOf('LICENSE');
    for (const section of ['1. Definitions.', '9. Accepting Warranty', 'END OF TERMS AND CONDITIONS', 'APPENDIX'])
      expect(text).toContain(section);
    expect(text).toContain('Copyright 2026 The RowMQ authors');
  });

  test('every package names that licence', async () => {
    const lock = JSON.parse(await textOf('package-lock.json')) as { packages: Record<string, { link?: boolean }> };
    const folders = Object.keys(lock.packages).filter((path) => !path.includes('node_modules'));
    expect(folders.length).toBeGreaterThan(8);
    for (const folder of folders) {
      const { license } = await manifestOf(folder === '' ? '' : `${folder}/`);
      expect(license, folder).toBe('Apache-2.0');
    }
  });

  test('.nvmrc names the Node.js of the image', async () => {
    const version = (await textOf('.nvmrc')).trim();
    const images = [...(await textOf('Dockerfile')).matchAll(/^FROM node:(\d+)/gm)].map(([, major]) => major);
    expect(new Set(images)).toEqual(new Set([version]));
  });

  test('the changelog begins with the changes that no release has', async () => {
    expect(/^## (.*)$/m.exec(await textOf('CHANGELOG.md'))?.[1]).toBe('Unreleased');
  });

  test.each(PAGES)('%s links to pages that exist', async (page) => {
    for (const [link, target] of (await textOf(page)).matchAll(/\]\((?!https?:)([^)#\s]+)[^)]*\)/g))
      expect(await exists(posix.join(posix.dirname(page), target as string)), `${page}: ${link}`).toBe(true);
  });

  // The changelog also names scripts that are gone.
  test.each(PAGES.filter((page) => page !== 'CHANGELOG.md'))('%s names npm scripts that exist', async (page) => {
    expect(Object.keys((await manifestOf('')).scripts)).toEqual(expect.arrayContaining(fromNpm(await textOf(page))));
  });
});
