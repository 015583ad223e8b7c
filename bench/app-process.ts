import { fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** A process of RowMQ's that is being measured. */
export interface AppProcess {
  /** Stops it in order; fails if it does not end cleanly. */
  stop(): Promise<void>;
}

/** Starts a compiled app and waits until it says that it is ready. It ends when this process does. */
export async function startApp(name: 'broker' | 'reaper', env: Record<string, string>): Promise<AppProcess> {
  const child = fork(join(ROOT, 'dist', 'apps', name, 'src', 'main.js'), [], {
    env: { PATH: process.env['PATH'] ?? '', ...env },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const exited = once(child, 'exit') as Promise<[number | null]>;
  const ready = new Promise<'ready'>((resolve) => {
    child.on('message', (message) => message === 'ready' && resolve('ready'));
  });
  if ((await Promise.race([ready, exited])) !== 'ready') throw new Error(`the ${name} did not start`);
  return {
    stop: async () => {
      child.kill('SIGTERM');
      const [code] = await exited;
      if (code !== 0) throw new Error(`the ${name} ended with ${String(code)}`);
    },
  };
}

/** A port nobody listens on at this moment. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
