import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
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

/** install.sh unpacks a newer version here if the system's own is too old. */
const UNPACKED = fileURLToPath(new URL('../../../.rowmq-test/servers/nats/bin', import.meta.url));

/**
 * By default it syncs every two minutes only:
 * https://docs.nats.io/reference/config/jetstream/sync_interval
 */
export const NATS_DURABILITY = 'file storage, sync_interval: always (fsync before each publish is answered)';

/** A NATS server with JetStream on a folder of its own. */
export async function startNats(): Promise<PeerServer> {
  // Not Debian 12's own 2.9, which may be on the PATH: "always" came with 2.10.
  const program = await findProgram('nats-server', [UNPACKED], 'nats-server');
  const folder = await temporaryFolder('nats');
  const port = await freePort();
  const config = join(folder, 'nats.conf');
  await writeFile(
    config,
    `listen: "127.0.0.1:${port}"\njetstream { store_dir: ${JSON.stringify(folder)}, sync_interval: always }\n`,
  );
  const child = await startServer({ program, arguments: ['-c', config], folder, ready: () => listens(port) });
  const { stdout } = await run(program, ['--version']);
  return {
    version: `NATS ${/v([\d.]+)/.exec(stdout)?.[1] ?? '?'}`,
    address: `nats://127.0.0.1:${port}`,
    pids: { nats: child.pid },
    stop: async () => {
      await stopProcess(child);
      await removeFolder(folder);
    },
  };
}
