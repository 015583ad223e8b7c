import { freePort } from '../../../test/support/processes.js';
import type { PeerServer } from '../peer.js';
import {
  findProgram,
  listens,
  removeFolder,
  run,
  startServer,
  stopProcess,
  temporaryFolder,
} from './server-process.js';

/**
 * A Redis that answers a write only after fsync:
 * https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/
 */
export const REDIS_DURABILITY = 'appendonly yes, appendfsync always';

/**
 * An empty Redis on a folder of its own, with the eviction policy that
 * https://docs.bullmq.io/guide/going-to-production demands.
 */
export async function startRedis(): Promise<PeerServer> {
  const program = await findProgram('redis-server', [], 'redis-server');
  const folder = await temporaryFolder('redis');
  const port = await freePort();
  const settings = {
    port: String(port),
    bind: '127.0.0.1',
    dir: folder,
    appendonly: 'yes',
    appendfsync: 'always',
    // The log alone makes it durable; snapshots beside it would only cost.
    save: '',
    'maxmemory-policy': 'noeviction',
  };
  const child = await startServer({
    program,
    arguments: Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]),
    folder,
    ready: () => listens(port),
  });
  const { stdout } = await run(program, ['--version']);
  return {
    version: `Redis ${/v=([\d.]+)/.exec(stdout)?.[1] ?? '?'}`,
    address: `redis://127.0.0.1:${port}`,
    pids: { redis: child.pid },
    stop: async () => {
      await stopProcess(child);
      await removeFolder(folder);
    },
  };
}
