import { createServer } from 'node:net';
import type { LauncherConfig } from './launcher.config.js';

/**
 * Waits for all, and only then fails with the first failure: so that nothing starts behind the
 * back of a stop.
 */
export async function allOrFirstFailure(starts: Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(starts)).find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

/** Finds the commonest reason for a failing first start before anything fails on it. */
export async function refuseTakenPort({ host, port }: Pick<LauncherConfig, 'host' | 'port'>): Promise<void> {
  await new Promise<void>((done, fail) => {
    const probe = createServer();
    probe.once('error', (error: NodeJS.ErrnoException) =>
      fail(
        error.code === 'EADDRINUSE'
          ? new Error(`Port ${port} on ${host} is taken. Stop what uses it, or set ROWMQ_PORT to another port.`)
          : new Error(`Cannot listen on ${host}, port ${port}: ${error.message}. See ROWMQ_HOST and ROWMQ_PORT.`),
      ),
    );
    probe.listen(port, host, () => probe.close(() => done()));
  });
}
