import { fileURLToPath } from 'node:url';
import type { PeerServer } from '../peer.js';
import { findProgram, run } from './server-process.js';
import { postgresFolders, startPostgres } from './postgres.js';

const FUNCTIONS = fileURLToPath(new URL('pgmq.sql', import.meta.url));
/** The version; empty where the extension is not installed. */
const AVAILABLE = `SELECT default_version FROM pg_available_extensions WHERE name = 'pgmq'`;

/**
 * A PostgreSQL with pgmq. Neither Debian's packages nor npm's have the extension. Without it, the
 * functions of pgmq.sql stand in, and the version says so.
 */
export async function startPgmq(): Promise<PeerServer> {
  const server = await startPostgres();
  try {
    const psql = await findProgram('psql', await postgresFolders(), 'postgresql');
    const execute = async (...args: string[]): Promise<string> => {
      const { stdout } = await run(psql, [server.address, '-XAtq', '-v', 'ON_ERROR_STOP=1', ...args]);
      return stdout.trim();
    };
    const version = await execute('-c', AVAILABLE);
    if (version === '') await execute('-f', FUNCTIONS);
    else await execute('-c', 'CREATE EXTENSION pgmq');
    const pgmq = version === '' ? "pgmq's functions, written from its documentation" : `pgmq ${version}`;
    return { ...server, version: `${server.version}, ${pgmq}` };
  } catch (error) {
    await server.stop();
    throw error;
  }
}
