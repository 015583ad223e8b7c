import { createHash, randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { freePort, isPortFree } from './ports.js';
import type { ServerKind } from './server-program.js';

/** A socket's path must fit into sockaddr_un: 107 bytes on Linux, 103 on macOS. */
const SOCKET_PATH_BYTES = 100;
const LOG_BYTES = 16 * 1024 * 1024;
const TAIL_BYTES = 4000;

/**
 * The files of one embedded server; MySQL and MariaDB cannot share them, so each kind has its own
 * folder.
 */
export class DataFolder {
  /** Absolute. */
  readonly path: string;
  readonly data: string;
  readonly errorLog: string;
  readonly pidFile: string;
  readonly initFile: string;

  /** @param sharedPassword password of the user `rowmq`, for servers that must share one. */
  constructor(
    dataDir: string,
    readonly kind: ServerKind,
    private readonly sharedPassword?: string,
  ) {
    this.path = resolve(dataDir, kind);
    this.data = join(this.path, 'data');
    this.errorLog = join(this.path, 'error.log');
    this.pidFile = join(this.path, 'server.pid');
    this.initFile = join(this.path, 'init.sql');
  }

  /** Makes the folder if it is missing, for its owner only. */
  async create(): Promise<void> {
    await mkdir(this.path, { recursive: true, mode: 0o700 });
  }

  /** Whether an initialisation was completed here. */
  async isInitialised(): Promise<boolean> {
    return exists(this.data);
  }

  /**
   * The password of the user `rowmq`: the one given, else made once, readable by the owner only.
   */
  async password(): Promise<string> {
    if (this.sharedPassword !== undefined) return this.sharedPassword;
    const file = join(this.path, 'password');
    const known = await readFile(file, 'utf8').catch(() => '');
    if (known !== '') return known;
    const password = randomBytes(24).toString('hex');
    await replaceFile(file, password);
    return password;
  }

  /**
   * The statements that run at each start, before the first connection. They create the user and
   * the database if these are missing. They also lock the account `root`, which an initialisation
   * leaves without a password.
   */
  async writeInitFile(password: string): Promise<void> {
    const lines = [
      `CREATE USER IF NOT EXISTS 'rowmq'@'127.0.0.1' IDENTIFIED BY '${password}';`,
      `ALTER USER 'rowmq'@'127.0.0.1' IDENTIFIED BY '${password}';`,
      `GRANT ALL PRIVILEGES ON *.* TO 'rowmq'@'127.0.0.1' WITH GRANT OPTION;`,
      `ALTER USER 'root'@'localhost' IDENTIFIED BY '${password}';`,
      `CREATE DATABASE IF NOT EXISTS rowmq CHARACTER SET utf8mb4;`,
    ];
    await replaceFile(this.initFile, `${lines.join('\n')}\n`);
  }

  /**
   * The port of the last start if it is free, otherwise another free one, remembered for the next
   * start.
   */
  async choosePort(): Promise<number> {
    const file = join(this.path, 'port');
    const remembered = Number(await readFile(file, 'utf8').catch(() => ''));
    if (remembered > 0 && (await isPortFree(remembered))) return remembered;
    const port = await freePort();
    await replaceFile(file, String(port));
    return port;
  }

  /**
   * Path of the server's socket, in a private folder under the system's temporary one where the
   * own path is too long.
   */
  async socket(): Promise<string> {
    const socket = join(this.path, 'server.sock');
    if (Buffer.byteLength(socket) <= SOCKET_PATH_BYTES) return socket;
    const name = createHash('sha256').update(this.path).digest('hex').slice(0, 16);
    const folder = join(tmpdir(), `rowmq-${process.getuid?.() ?? 0}-${name}`);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const owner = (await stat(folder)).uid;
    if (process.getuid !== undefined && owner !== process.getuid()) {
      throw new Error(`${folder} belongs to user ${owner}: remove it, or set ROWMQ_DATA_DIR to a shorter path.`);
    }
    return join(folder, 'server.sock');
  }

  /** Moves a log that grew large aside, so that the two together stay bounded. */
  async rotateErrorLog(): Promise<void> {
    const size = await stat(this.errorLog).then(
      (found) => found.size,
      () => 0,
    );
    if (size > LOG_BYTES) await rename(this.errorLog, `${this.errorLog}.old`);
  }

  /** The end of a log file, not before the given byte, for an error message. */
  static async tail(file: string, from = 0): Promise<string> {
    const handle = await open(file).catch(() => undefined);
    if (handle === undefined) return '';
    try {
      const { size } = await handle.stat();
      const length = Math.min(Math.max(0, size - from), TAIL_BYTES);
      const { buffer } = await handle.read(Buffer.alloc(length), 0, length, size - length);
      return buffer.toString('utf8').split('\n').slice(-20).join('\n');
    } finally {
      await handle.close();
    }
  }
}

/** Whether a path exists. */
export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** Writes a private file so that a crash leaves either the old content or the new. */
export async function replaceFile(file: string, content: string): Promise<void> {
  const temporary = `${file}.new`;
  await rm(temporary, { force: true });
  await writeFile(temporary, content, { mode: 0o600, flush: true });
  await rename(temporary, file);
}
