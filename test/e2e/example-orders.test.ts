import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { useBroker } from '../support/api.js';
import { freePort } from '../support/processes.js';
import { eventually } from '../support/wait.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const shared = useBroker();

it('examples/orders mails what is ordered, dead-letters what cannot be mailed, and stops in order', async () => {
  const port = await freePort();
  const env = { ...process.env, ROWMQ_URL: shared.broker.url, SHOP_PORT: String(port) };
  // What npm run example:orders runs; without npm between, whose exit code is its own.
  const example = spawn(process.execPath, ['scripts/run.mjs', 'examples/orders/main'], {
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
    const placed = await place({ customer: 'jo@example.com', article: 'teapot', count: 1 });
    const { id } = (await placed.json()) as { id: string };
    await eventually('the mail', () =>
      output.includes(`mailed jo@example.com about teapot (message ${id}, received 1 times)`),
    );
    expect((await place({ customer: 'nobody', article: 'teapot', count: 0 })).status).toBe(400);
    await place({ customer: 'jo@example.invalid', article: 'teapot', count: 1 });
    const dead = await eventually('the dead letter', async () => {
      const [first] = await shared.api.queue('orders-dead').browse('ready');
      return first;
    });
    expect(dead.lastNackReason).toBe('nobody can be mailed at jo@example.invalid');
  } finally {
    example.kill('SIGTERM');
  }
  const [code] = (await ended) as [number | null];
  expect(code, output).toBe(0);
  expect((await shared.api.queue('orders').get()).stats).toMatchObject({ ready: 0, leased: 0 });
});
