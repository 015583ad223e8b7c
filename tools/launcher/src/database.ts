import { access, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { databaseName, type DatabaseTls, reason, Supervisor } from '@rowmq/runtime';
import {
  EmbeddedServer,
  FolderLockedError,
  type ServerKind,
  ServerNotFoundError,
  type ServerProgram,
  findServer,
} from '@rowmq/mysql-server';
import { startDockerDatabase } from './docker-database.js';
import type { LauncherConfig } from './launcher.config.js';
import { asRunning } from './supervised.js';

/** An earlier start that is just stopping gives the folder free within this. */
const LOCK_PATIENCE_MS = 15_000;
const LOCK_POLL_MS = 200;

/**
 * For the apps on a database of ours, which does without: the settings for TLS are those of
 * ROWMQ_DATABASE_URL.
 */
export const NOT_ENCRYPTED = { ROWMQ_DATABASE_TLS: '', ROWMQ_DATABASE_TLS_CA: '' };

const nothing = (): Promise<void> => Promise.resolve();

/** The database the apps use, and how to stop it where it is ours to stop. */
export interface LaunchedDatabase {
  readonly url: string;
  /** How it is reached; undefined: without encryption. */
  readonly tls?: DatabaseTls | undefined;
  /** Its origin, for people. */
  readonly description: string;
  /** Folder that only this launcher uses while it runs; undefined when the database is not ours. */
  readonly folder: string | undefined;
  stop(): Promise<void>;
  kill(): Promise<void>;
}

/**
 * Takes the database that is configured, else runs an embedded server, else one in a container.
 * @throws ServerNotFoundError when there is none; its message says what to do
 */
export async function launchDatabase(
  config: LauncherConfig,
  log: (line: string) => void,
  signal: AbortSignal,
): Promise<LaunchedDatabase> {
  if (config.databaseUrl !== undefined) {
    const description = `ROWMQ_DATABASE_URL, ${databaseName(config.databaseUrl)}`;
    const { databaseUrl: url, databaseTls: tls } = config;
    return { url, tls, description, folder: undefined, stop: nothing, kill: nothing };
  }
  await refuseUnwritable(config.dataDir, 'ROWMQ_DATA_DIR');
  if (config.serversDir !== undefined) await refuseUnreadable(config.serversDir);
  try {
    return await launchEmbedded(config, await chooseServer(config, log, signal), log, signal);
  } catch (error) {
    if (!(error instanceof ServerNotFoundError)) throw error;
    const inContainer = await startDockerDatabase(config.dataDir, log, signal);
    if (inContainer === undefined) throw error;
    return inContainer;
  }
}

/** Finds a folder that cannot be written to before a server is unpacked, and names its setting. */
export async function refuseUnwritable(folder: string, setting: string): Promise<void> {
  const probe = join(folder, `.probe-${process.pid}`);
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await writeFile(probe, '');
    await rm(probe);
  } catch (error) {
    throw new Error(
      `Cannot write to the folder ${folder}: ${reason(error)}. Let this user write there, or name another folder in ${setting}.`,
      { cause: error },
    );
  }
}

/** Servers may be unpacked there already, so it need not be writable. */
async function refuseUnreadable(folder: string): Promise<void> {
  const found = await access(folder).then(
    () => true,
    () => false,
  );
  if (!found) await refuseUnwritable(folder, 'ROWMQ_SERVERS_DIR');
}

async function chooseServer(
  config: LauncherConfig,
  log: (line: string) => void,
  signal: AbortSignal,
): Promise<ServerProgram> {
  const kinds = await eligibleKinds(config);
  const program = await findServer({ kinds, dataDir: config.dataDir, serversDir: config.serversDir, log, signal });
  if (program.kind !== kinds[0]) {
    log(`No ${kinds[0]} can be had here, so this is ${program.kind}. ROWMQ_EMBEDDED_SERVER=${kinds[0]} shows why.`);
  }
  return program;
}

/**
 * The kind that the settings name; else the kind that holds an earlier run's data; else both,
 * MySQL first.
 */
async function eligibleKinds(config: LauncherConfig): Promise<readonly ServerKind[]> {
  if (config.embeddedServer !== undefined) return [config.embeddedServer];
  for (const kind of ['mysql', 'mariadb'] as const) {
    const used = await access(join(config.dataDir, kind, 'data')).then(
      () => true,
      () => false,
    );
    if (used) return [kind];
  }
  return ['mysql', 'mariadb'];
}

async function launchEmbedded(
  config: LauncherConfig,
  program: ServerProgram,
  log: (line: string) => void,
  signal: AbortSignal,
): Promise<LaunchedDatabase> {
  let server: EmbeddedServer | undefined;
  const supervisor = new Supervisor(
    'database',
    async (stopping) => {
      server = await EmbeddedServer.start({
        program,
        dataDir: config.dataDir,
        // A restarted server must be found where the apps look for it.
        port: server?.port,
        bufferPoolMegabytes: config.bufferPoolMegabytes,
        signal: AbortSignal.any([signal, stopping]),
        log,
      });
      return asRunning(server);
    },
    log,
  );
  await startOnceFree(supervisor, log, signal);
  return {
    url: server!.url,
    description: `embedded ${program.kind} ${program.version} (${program.origin}), data in ${config.dataDir}`,
    folder: join(config.dataDir, program.kind),
    stop: () => supervisor.stop(),
    kill: () => supervisor.kill(),
  };
}

/**
 * Starts the server, giving another start on the same folder, which may be about to end, some time
 * to do so.
 */
async function startOnceFree(supervisor: Supervisor, log: (line: string) => void, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + LOCK_PATIENCE_MS;
  for (let told = false; ; told = true) {
    try {
      await supervisor.start();
      return;
    } catch (error) {
      if (!(error instanceof FolderLockedError) || performance.now() >= deadline) throw error;
      if (!told) {
        log(
          `Process ${error.holderPid} uses ${error.folder}; waiting ${LOCK_PATIENCE_MS / 1000} s in case it is stopping …`,
        );
      }
      await delay(LOCK_POLL_MS, undefined, { signal });
    }
  }
}
