import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { Api, useOwnBroker } from '../support/api.js';
import { blocksOf } from '../support/docs.js';
import { freePort } from '../support/processes.js';
import { eventually } from '../support/wait.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const KEY = 'a-key-of-the-example';
const shared = useOwnBroker({ ROWMQ_ADMIN_KEY: KEY });
const run = promisify(execFile);

/** The command with which the example's page orders a teapot. */
async function orderCommand(port: number): Promise<string> {
  const blocks = await blocksOf('examples/orders/README.md', 'sh');
  return (blocks.find(({ text }) => text.startsWith('curl'))?.text ?? '').replace(':3000', `:${port}`);
}

it('the orders example mails an order, dead-letters one that cannot be mailed, and stops cleanly', async () => {
  const port = await freePort();
  const api = new Api(shared.broker.url, { authorization: `Bearer ${KEY}` });
  const env = { ...process.env, ROWMQ_URL: shared.broker.url, ROWMQ_ADMIN_KEY: KEY, SHOP_PORT: String(port) };
  // The script of `npm run example:orders`, without npm, whose exit code would replace it.
  const example = spawn(process.execPath, ['scripts/run.mjs', 'examples/orders/dist/main.js'], {
    cwd: ROOT,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [example.stdout, example.stderr])
    stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const ended = once(example, 'close');
  try {
    await eventually(
      'both services',
      () => output.includes('shop takes orders') && output.includes('mailer waits'),
      60_000,
    );
    const place = async (order: unknown) =>
      fetch(`http://127.0.0.1:${port}/orders`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(order),
      });
    const { stdout } = await run('bash', ['-euc', await orderCommand(port)], { timeout: 60_000 });
    const { id } = JSON.parse(stdout) as { id: string };
    await eventually('the mail', () =>
      output.includes(`mailed jo@example.com about teapot (message ${id}, received 1 times)`),
    );
    expect((await place({ customer: 'nobody', article: 'teapot', count: 0 })).status).toBe(400);
    await place({ customer: 'jo@example.invalid', article: 'teapot', count: 1 });
    const dead = await eventually('the dead letter', async () => {
      const [first] = await api.queue('orders-dead').browse('ready');
      return first;
    });
    expect(dead.lastNackReason).toBe('no mail can be sent to jo@example.invalid');
  } finally {
    example.kill('SIGTERM');
  }
  const [code] = (await ended) as [number | null];
  expect(code, output).toBe(0);
  expect((await api.queue('orders').get()).stats).toMatchObject({ ready: 0, leased: 0 });
});
