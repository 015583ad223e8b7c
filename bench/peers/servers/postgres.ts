import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { freePort } from '../../../test/support/processes.js';
import type { PeerServer } from '../peer.js';
import {
  findProgram,
  removeFolder,
  run,
  startServer,
  stopProcess,
  temporaryFolder,
  type User,
} from './server-process.js';

/** Debian keeps the programs of each version here. */
const DEBIAN_FOLDER = '/usr/lib/postgresql';

export const POSTGRES_DURABILITY = 'fsync=on, synchronous_commit=on, full_page_writes=on';

/**
 * Debian's defaults (autovacuum on), with as much memory for pages and as much write-ahead log
 * between checkpoints as RowMQ's databases have.
 * https://www.postgresql.org/docs/15/runtime-config-resource.html asks for the former,
 * https://www.postgresql.org/docs/15/wal-configuration.html for the latter.
 */
const SETTINGS = {
  fsync: 'on',
  synchronous_commit: 'on',
  full_page_writes: 'on',
  autovacuum: 'on',
  shared_buffers: '1GB',
  max_wal_size: '2GB',
  max_connections: '200',
};

/** A PostgreSQL with an empty database, on a folder of its own. */
export async function startPostgres(): Promise<PeerServer> {
  const folders = await postgresFolders();
  const postgres = await findProgram('postgres', folders, 'postgresql');
  const initdb = await findProgram('initdb', folders, 'postgresql');
  const user = await unprivilegedUser();
  const folder = await temporaryFolder('postgres', user);
  const data = join(folder, 'data');
  await run(initdb, ['-D', data, '-U', 'bench', '-A', 'trust', '-E', 'UTF8', '--locale=C.UTF-8'], {
    cwd: folder,
    ...user,
  });
  const port = await freePort();
  const settings = { ...SETTINGS, port: String(port), listen_addresses: '127.0.0.1', unix_socket_directories: folder };
  const child = await startServer({
    program: postgres,
    arguments: ['-D', data, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
    folder,
    user,
    ready: async () =>
      run(await findProgram('pg_isready', folders, 'postgresql'), ['-h', '127.0.0.1', '-p', String(port), '-q']).then(
        () => true,
        () => false,
      ),
  });
  const { stdout } = await run(postgres, ['--version']);
  return {
    version: `PostgreSQL ${/\d[\d.]*/.exec(stdout)?.[0] ?? '?'}`,
    address: `postgres://bench@127.0.0.1:${port}/postgres`,
    pids: { postgres: child.pid },
    stop: async () => {
      // Fast shutdown: it does not wait for clients.
      await stopProcess(child, 'SIGINT');
      await removeFolder(folder);
    },
  };
}

/** Folders of PostgreSQL's programs, the newest version first. */
export async function postgresFolders(): Promise<string[]> {
  const versions = (await readdir(DEBIAN_FOLDER).catch(() => [])).toSorted((a, b) => Number(b) - Number(a));
  return versions.map((version) => join(DEBIAN_FOLDER, version, 'bin'));
}

/** PostgreSQL refuses to run as root; its package brings a user. */
async function unprivilegedUser(): Promise<User | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const id = async (flag: string): Promise<number> => Number((await run('id', [flag, 'postgres'])).stdout);
  return { uid: await id('-u'), gid: await id('-g') };
}
