import { execFile, spawn } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ServerNotFoundError } from './errors.js';

const run = promisify(execFile);

/** The two families of servers RowMQ runs on. */
export type ServerKind = 'mysql' | 'mariadb';

/** The origin of a server program. */
export type ServerOrigin = 'unpacked earlier' | 'installed on this machine' | 'unpacked just now';

/** A database server that can be run here. */
export interface ServerProgram {
  readonly kind: ServerKind;
  /** Absolute path of `mysqld` or `mariadbd`, or of the wrapper that runs it. */
  readonly program: string;
  /** Such as `9.7.4`. */
  readonly version: string;
  readonly origin: ServerOrigin;
}

/** The options of {@link findServer}. */
export interface FindServerOptions {
  /** Servers are unpacked into `<dataDir>/servers/<kind>`. */
  readonly dataDir: string;
  /** Kinds that will do, the preferred one first. Default: MySQL, then MariaDB. */
  readonly kinds?: readonly ServerKind[];
  /**
   * A folder of unpacked servers that several data folders share; used instead of
   * `<dataDir>/servers`, which is still looked at.
   */
  readonly serversDir?: string | undefined;
  /** False: do not unpack anything, only look. Default true. */
  readonly install?: boolean;
  /** Told what takes long. */
  readonly log?: ((line: string) => void) | undefined;
  /** Gives up unpacking. */
  readonly signal?: AbortSignal | undefined;
}

const PROGRAMS: Record<ServerKind, string> = { mysql: 'mysqld', mariadb: 'mariadbd' };
const MINIMUM: Record<ServerKind, readonly [number, number]> = { mysql: [8, 4], mariadb: [10, 6] };
const INSTALL_DEADLINE_MS = 15 * 60_000;

/**
 * Finds a database server: one unpacked earlier, else one installed on the machine, else (on
 * Debian and Ubuntu) one unpacked now from the distribution's packages. If several kinds will do,
 * each step tries them in the order given.
 * @throws ServerNotFoundError when there is none; its message says what to do
 */
export async function findServer(options: FindServerOptions): Promise<ServerProgram> {
  const kinds = options.kinds ?? ['mysql', 'mariadb'];
  const unpackedIn = [join(resolve(options.dataDir), 'servers')];
  if (options.serversDir !== undefined) unpackedIn.unshift(resolve(options.serversDir));
  const reasons: string[] = [];

  for (const kind of kinds) {
    for (const folder of unpackedIn) {
      const found = await probe(kind, join(folder, kind, 'bin', PROGRAMS[kind]), 'unpacked earlier', reasons);
      if (found) return found;
    }
  }
  for (const kind of kinds) {
    for (const program of systemPrograms(kind)) {
      const found = await probe(kind, program, 'installed on this machine', reasons);
      if (found) return found;
    }
  }
  for (const kind of options.install === false ? [] : kinds) {
    const target = join(unpackedIn[0]!, kind);
    try {
      await unpack(kind, target, options);
    } catch (error) {
      options.signal?.throwIfAborted();
      reasons.push(error instanceof Error ? error.message : String(error));
      continue;
    }
    const found = await probe(kind, join(target, 'bin', PROGRAMS[kind]), 'unpacked just now', reasons);
    if (found) return found;
  }
  throw new ServerNotFoundError(reasons.length > 0 ? reasons : kinds.map((kind) => `no ${PROGRAMS[kind]} found`));
}

/**
 * Candidate paths on this machine; MariaDB installs itself as `mysqld` too, so what a program is,
 * its version tells.
 */
function systemPrograms(kind: ServerKind): string[] {
  const names = kind === 'mysql' ? ['mysqld'] : ['mariadbd', 'mysqld'];
  const folders = [...(process.env['PATH'] ?? '').split(delimiter).filter(Boolean), '/usr/sbin', '/usr/local/sbin'];
  return names.flatMap((name) => [...new Set(folders)].map((folder) => resolve(folder, name)));
}

async function probe(
  kind: ServerKind,
  program: string,
  origin: ServerOrigin,
  reasons: string[],
): Promise<ServerProgram | undefined> {
  try {
    await access(program, constants.X_OK);
  } catch {
    return undefined;
  }
  try {
    const { stdout } = await run(program, ['--no-defaults', '--version'], { timeout: 30_000 });
    const found = parseServerVersion(stdout);
    if (found.kind !== kind) return undefined;
    const [major, minor] = MINIMUM[kind];
    const [ownMajor = 0, ownMinor = 0] = found.version.split('.').map(Number);
    if (ownMajor > major || (ownMajor === major && ownMinor >= minor)) {
      return { kind, program, version: found.version, origin };
    }
    reasons.push(`${program} is ${kind} ${found.version}; RowMQ needs ${major}.${minor} or later`);
  } catch (error) {
    reasons.push(`${program} --version does not work: ${String(error).trim()}`);
  }
  return undefined;
}

/**
 * Reads the kind and version from what `--version` prints, on both servers and in all their
 * spellings.
 */
export function parseServerVersion(text: string): { kind: ServerKind; version: string } {
  const version = /(?:Ver|from)\s+(\d+\.\d+\.\d+)/.exec(text)?.[1];
  if (version === undefined) throw new Error(`no version in: ${text.trim()}`);
  return { kind: /mariadb/i.test(text) ? 'mariadb' : 'mysql', version };
}

async function unpack(kind: ServerKind, target: string, { log, signal }: FindServerOptions): Promise<void> {
  const script = await installScript();
  log?.(`Unpacking ${kind} from the distribution's packages into ${target} (once; about half a minute) …`);
  const child = spawn('bash', [script, kind, target], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: INSTALL_DEADLINE_MS,
    ...(signal ? { signal } : {}),
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (output = (output + text).slice(-4000)));
  }
  const ended = await new Promise<string>((done, fail) => {
    child.once('error', fail);
    child.once('close', (code, killedBy) => done(killedBy ?? String(code)));
  });
  if (ended !== '0') {
    // The script ends with advice for those who run it by hand; ServerNotFoundError gives its own.
    const reason = output.split('\nDo one of these')[0]!.trim().replaceAll('\n', '\n      ');
    throw new Error(`unpacking ${kind} ended with ${ended}: ${reason}`);
  }
}

/**
 * The script lies at the top of the project, seen from the sources as well as from the compiled
 * files.
 */
async function installScript(): Promise<string> {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const script = join(folder, 'scripts', 'install-server.sh');
    if (
      await access(script).then(
        () => true,
        () => false,
      )
    )
      return script;
    if (folder === dirname(folder))
      throw new Error('scripts/install-server.sh is missing: run RowMQ from its project folder');
  }
}
