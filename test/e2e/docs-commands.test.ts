import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Api } from '../support/api.js';
import { blocksOf, exceptionOf, pages } from '../support/docs.js';
import { type Broker, startBroker } from '../support/processes.js';

/* Types the commands that the docs tell readers to type at a broker. */

const root = fileURLToPath(new URL('../../', import.meta.url));
const run = promisify(execFile);
const KEY = 'a-key-of-the-documentation';

/**
 * The shell blocks of a page that speak to a broker, in the order in which a reader would type
 * them.
 */
async function commandsOf(page: string): Promise<string[]> {
  const blocks = await blocksOf(page, 'sh');
  return blocks
    .filter((block) => block.text.includes('curl') && exceptionOf(block) === undefined)
    .map(({ text }) => text);
}

const PAGES = (await pages()).filter((page) => !page.startsWith('test/'));
const COMMANDS = new Map(
  await Promise.all(PAGES.map(async (page): Promise<[string, string[]]> => [page, await commandsOf(page)])),
);
const PAGES_WITH_COMMANDS = PAGES.filter((page) => COMMANDS.get(page)?.length);

/** The answers that a page's commands must bring. */
const EXPECTED: Record<string, string[]> = {
  'README.md': ['"acked":["', '"failed":[]'],
  'docs/protocol.md': [
    '"acked":["',
    '"failed":[]',
    '"released":["',
    '"kind":"redrive"',
    '"state":"done"',
    'rowmq_messages_total',
  ],
  'docs/operations.md': ['"paused":true', '"paused":false', '"kind":"purge"', '"leader":'],
};

let open: Broker;
let keyed: Broker;

beforeAll(async () => {
  [open, keyed] = await Promise.all([startBroker(), startBroker({ env: { ROWMQ_ADMIN_KEY: KEY } })]);
});
afterAll(async () => {
  for (const broker of [open, keyed]) {
    await broker.stop();
    await broker.database.drop();
  }
});

/** The queue in question, which is paused, and its dead letters. */
async function prepareTrouble(api: Api): Promise<void> {
  await api.queue('orders-dead').put();
  await api.queue('orders').put({ deadLetterQueue: 'orders-dead' });
  await api.queue('orders').admin('pause');
  await api.queue('orders-dead').enqueue('dead');
}

it('are those of three pages', () => {
  expect(PAGES_WITH_COMMANDS.toSorted()).toEqual(Object.keys(EXPECTED).toSorted());
});

describe.each(PAGES_WITH_COMMANDS)('the commands of %s', (page) => {
  it.each(['without', 'with'])('work as they stand at a broker %s a key', async (which) => {
    const hasKey = which === 'with';
    const broker = hasKey ? keyed : open;
    const api = new Api(broker.url, hasKey ? { authorization: `Bearer ${KEY}` } : {});
    if (page === 'docs/operations.md') await prepareTrouble(api);
    const commands = COMMANDS.get(page) as string[];
    const definesKey = (text: string): boolean => text.startsWith('curl() {');
    expect(commands.filter(definesKey)).toHaveLength(1);
    const script = commands.filter((text) => hasKey || !definesKey(text)).join('\n');
    expect(script.match(/curl/g)?.length).toBeGreaterThan(3);
    const { stdout } = await run('bash', ['-euo', 'pipefail', '-c', script], {
      env: { ...process.env, ROWMQ: broker.url, ROWMQ_ADMIN_KEY: hasKey ? KEY : '' },
      cwd: root,
      timeout: 30_000,
    });
    for (const expected of EXPECTED[page] as string[]) expect(stdout).toContain(expected);
  });
});
