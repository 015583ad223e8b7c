import { once } from 'node:events';
import { createServer } from 'node:net';
import { expect, test } from 'vitest';
import { freePort, isPortFree } from './ports.js';

test('ports in a row are free, and none that the system gives to outgoing connections', async () => {
  const first = await freePort(2);
  expect(first).toBeGreaterThanOrEqual(15_000);
  expect(first + 1).toBeLessThan(32_000);
  for (const port of [first, first + 1]) {
    const server = createServer().listen(port, '127.0.0.1');
    await once(server, 'listening');
    expect(await isPortFree(port)).toBe(false);
    server.close();
    await once(server, 'close');
    expect(await isPortFree(port)).toBe(true);
  }
});
