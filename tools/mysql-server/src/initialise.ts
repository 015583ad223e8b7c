import { spawn } from 'node:child_process';
import { open, readFile, rename, rm, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DataFolder, exists } from './data-folder.js';
import { EmbeddedServerError } from './errors.js';
import { findProcessesByArgument, terminateProcess } from './processes.js';
import type { ServerProgram } from './server-program.js';
import { basicArguments } from './settings.js';

const DEADLINE_MS = 5 * 60_000;

/**
 * Makes the system tables in a data folder that has none yet. They grow in a folder beside, which
 * is renamed when complete: an initialisation that was interrupted is simply done again.
 */
export async function initialise(program: ServerProgram, folder: DataFolder, signal?: AbortSignal): Promise<void> {
  const unfinished = `${folder.data}.unfinished`;
  for (const process of await findProcessesByArgument(`--datadir=${unfinished}`))
    await terminateProcess(process, 5_000);
  await rm(unfinished, { recursive: true, force: true });

  if (program.kind === 'mysql') {
    await runServer(program, folder, [...basicArguments(unfinished), '--initialize-insecure'], { signal });
  } else {
    await mkdir(unfinished, { mode: 0o700 });
    const commandLine = [...basicArguments(unfinished), '--bootstrap', '--skip-log-bin', '--max-allowed-packet=8M'];
    await runServer(program, folder, commandLine, { signal, input: await mariadbSystemTables(program.program) });
  }
  await rename(unfinished, folder.data);
}

async function runServer(
  program: ServerProgram,
  folder: DataFolder,
  commandLine: string[],
  { input = '', signal }: { input?: string; signal?: AbortSignal | undefined },
): Promise<void> {
  const log = await open(folder.errorLog, 'a', 0o600);
  let ended: string;
  try {
    const child = spawn(program.program, commandLine, {
      stdio: ['pipe', log.fd, log.fd],
      detached: true,
      timeout: DEADLINE_MS,
      killSignal: 'SIGKILL',
      ...(signal ? { signal } : {}),
    });
    ended = await new Promise<string>((done) => {
      child.once('error', (error) => done(error.message));
      child.once('exit', (code, killedBy) => done(killedBy ?? `exit code ${code}`));
      // A server that ends early does not read to the end; its exit code says more than EPIPE.
      child.stdin!.on('error', () => undefined);
      child.stdin!.end(input);
    });
  } finally {
    await log.close();
  }
  if (ended === 'exit code 0') return;
  signal?.throwIfAborted();
  const what = `${program.kind} ${program.version} (${program.program}) could not initialise ${folder.path}: ${ended}.${await hint(program)}`;
  throw new EmbeddedServerError(what, folder.errorLog, await DataFolder.tail(folder.errorLog));
}

/**
 * The most puzzling failure: the distribution's AppArmor profile keeps mysqld out of other folders.
 */
async function hint(program: ServerProgram): Promise<string> {
  if (program.origin !== 'installed on this machine' || !(await exists('/sys/kernel/security/apparmor'))) return '';
  return (
    ' If the log says "Permission denied", AppArmor confines this program to the system\'s own data folder:' +
    ' allow it this folder, or put an unpacked server there with scripts/install-server.sh and set ROWMQ_SERVERS_DIR.'
  );
}

/**
 * The SQL that mariadb-install-db feeds to `mariadbd --bootstrap`, in its order. Done here because
 * that script insists on helper programs and paths that an unpacked server does not have.
 */
async function mariadbSystemTables(program: string): Promise<string> {
  const share = await mariadbShare(program);
  // The prefix changed from mysql_ to mariadb_ with MariaDB 11.
  const prefix = (await exists(join(share, 'mariadb_system_tables.sql'))) ? 'mariadb' : 'mysql';
  const names = ['system_tables', 'performance_tables', 'system_tables_data'].map((name) => `${prefix}_${name}.sql`);
  names.push('maria_add_gis_sp_bootstrap.sql', `${prefix}_sys_schema.sql`);
  const files = await Promise.all(names.map((name) => readFile(join(share, name), 'utf8')));
  return [
    'create database if not exists mysql;',
    'use mysql;',
    'set @auth_root_socket=NULL;',
    ...files,
    // Only root@localhost stays of the accounts without a password; each start gives it one.
    "delete from global_priv where User = '' or (User = 'root' and Host <> 'localhost');",
    "delete from proxies_priv where Host <> 'localhost';",
    '',
  ].join('\n');
}

async function mariadbShare(program: string): Promise<string> {
  const root = dirname(dirname(program));
  const candidates = [join(root, 'usr'), root, '/usr', '/usr/local'].flatMap((prefix) =>
    ['mysql', 'mariadb'].map((name) => join(prefix, 'share', name)),
  );
  for (const candidate of candidates) {
    if (await exists(join(candidate, 'maria_add_gis_sp_bootstrap.sql'))) return candidate;
  }
  throw new Error(
    `Found none of MariaDB's system table scripts for ${program} (looked in ${candidates.join(', ')}). ` +
      'Install the complete mariadb-server package, or set ROWMQ_EMBEDDED_SERVER=mysql.',
  );
}
