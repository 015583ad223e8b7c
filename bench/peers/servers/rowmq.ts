import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EmbeddedServer, findServer, type ServerKind, redoLogArgument } from '@rowmq/mysql-server';
import { migrateDatabase } from '@rowmq/store';
import { copyFreshData } from '../../../test/support/fresh-data.js';
import { type AppProcess, freePort, startApp } from '../../../test/support/processes.js';
import { DatabaseProbe } from '../../harness/database-probe.js';
import { makePartitions } from '../../harness/partitions.js';
import type { PeerServer } from '../peer.js';
import { removeFolder, temporaryFolder } from './server-process.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
/** As PostgreSQL's shared_buffers. */
const BUFFER_POOL_MEGABYTES = 1024;

export const ROWMQ_DURABILITY = 'innodb_flush_log_at_trx_commit=1, sync_binlog=1, row binlog on';

/**
 * The embedded database server with RowMQ's tables and the partitions that a reaper would have
 * made.
 */
export async function startDatabase(kind: ServerKind): Promise<PeerServer> {
  const serversDir = process.env['ROWMQ_SERVERS_DIR'];
  const program = await findServer({
    kinds: [kind],
    dataDir: join(ROOT, '.rowmq-test'),
    ...(serversDir ? { serversDir } : {}),
  });
  const folder = await temporaryFolder(kind);
  await copyFreshData(program, folder);
  const server = await EmbeddedServer.start({
    program,
    dataDir: folder,
    bufferPoolMegabytes: BUFFER_POOL_MEGABYTES,
    // A server under such a load should have a large one.
    extraArguments: [redoLogArgument(program.kind, 1024)],
  });
  const endWithUs = (): void => void process.kill(server.pid, 'SIGKILL');
  process.once('exit', endWithUs);
  const stop = async (): Promise<void> => {
    await server.stop();
    process.off('exit', endWithUs);
    await removeFolder(folder);
  };
  try {
    await migrateDatabase(server.url);
    await makePartitions(server.url);
    const probe = await DatabaseProbe.open(server.url);
    await probe.assertDurable();
    await probe.close();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    version: `${kind === 'mysql' ? 'MySQL' : 'MariaDB'} ${program.version}`,
    address: server.url,
    pids: { database: server.pid },
    stop,
  };
}

/**
 * Brokers as they are installed, on such a database. The address has the URL of each, with commas
 * between.
 */
export async function startBrokers(kind: ServerKind, count: number): Promise<PeerServer> {
  const database = await startDatabase(kind);
  const brokers: AppProcess[] = [];
  const stop = async (): Promise<void> => {
    for (const broker of brokers) await broker.stop();
    await database.stop();
  };
  try {
    const urls: string[] = [];
    while (brokers.length < count) {
      const port = await freePort();
      brokers.push(await startApp('broker', { ROWMQ_DATABASE_URL: database.address, ROWMQ_PORT: String(port) }));
      urls.push(`http://127.0.0.1:${port}`);
    }
    const pids = Object.fromEntries(
      brokers.map(({ pid }, index) => [index === 0 ? 'broker' : `broker ${index + 1}`, pid]),
    );
    return { ...database, address: urls.join(','), pids: { ...database.pids, ...pids }, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
