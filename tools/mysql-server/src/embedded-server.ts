import { DataFolder } from './data-folder.js';
import { FolderLock } from './folder-lock.js';
import { initialise } from './initialise.js';
import { findProcessesByArgument, terminateProcess } from './processes.js';
import type { ServerKind, ServerProgram } from './server-program.js';
import {
  type LaunchOptions,
  type ServerExit,
  type ServerProcess,
  STOP_DEADLINE_MS,
  launchServer,
  stopServer,
} from './server-process.js';

const PORT_ATTEMPTS = 3;

/** How to run an embedded server. */
export interface EmbeddedServerOptions {
  readonly program: ServerProgram;
  /** The server's files go into `<dataDir>/<kind>`. */
  readonly dataDir: string;
  /**
   * A fixed port, for a restart that clients wait for. Default: the last one that was used, or
   * another if that is taken.
   */
  readonly port?: number | undefined;
  /** Default: a quarter of the memory, at most 4 GiB. */
  readonly bufferPoolMegabytes?: number | undefined;
  /** Recovery after a crash counts in. Default 5 minutes. */
  readonly startDeadlineMs?: number | undefined;
  /**
   * The password of the user `rowmq`, for servers that must share one. Default: made at the first
   * start.
   */
  readonly password?: string | undefined;
  /**
   * Leave the accounts as they are. Default: they are made again at each start, should they be
   * missing.
   */
  readonly keepAccounts?: boolean | undefined;
  /** Further options of the server, which override RowMQ's own. */
  readonly extraArguments?: readonly string[] | undefined;
  /** Gives the start up; whatever it had started is stopped first. */
  readonly signal?: AbortSignal | undefined;
  /** Told what takes long and what was found. */
  readonly log?: ((line: string) => void) | undefined;
}

/**
 * A real `mysqld` or `mariadbd`, private to one folder: durable, reachable from this machine only,
 * and locked against a second start on the same folder. It runs in a session of its own, so that
 * Ctrl-C in a terminal does not stop it before its clients.
 */
export class EmbeddedServer {
  readonly kind: ServerKind;
  /** `mysql://rowmq:<password>@127.0.0.1:<port>/rowmq`; this user may do everything. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /**
   * Resolves when the process has ended, for whatever reason, and the folder is free again. Never
   * rejects.
   */
  readonly exited: Promise<ServerExit>;
  private stopping: Promise<void> | undefined;

  private constructor(
    kind: ServerKind,
    private readonly server: ServerProcess,
    lock: FolderLock,
  ) {
    this.kind = kind;
    this.url = server.url;
    this.port = server.port;
    this.pid = server.pid;
    this.exited = server.exited.then(async (exit) => {
      // If somebody deleted the folder under the server, there is no lock left to release.
      await lock.release().catch(() => undefined);
      return exit;
    });
  }

  /**
   * Starts a server and waits until it answers. Initialises the folder at the first start,
   * replaces a server that a killed process left behind on it, and recovers from whatever state a
   * crash left.
   * @throws FolderLockedError when a live process uses the folder
   * @throws EmbeddedServerError when the server does not come up
   */
  static async start(options: EmbeddedServerOptions): Promise<EmbeddedServer> {
    const { program, log } = options;
    const folder = new DataFolder(options.dataDir, program.kind, options.password);
    await folder.create();
    const lock = await FolderLock.acquire(folder.path);
    try {
      await stopLeftOver(folder, log);
      await folder.rotateErrorLog();
      if (!(await folder.isInitialised())) {
        log?.(`Initialising ${program.kind} ${program.version} in ${folder.path} …`);
        await initialise(program, folder, options.signal);
      }
      return new EmbeddedServer(program.kind, await launchOnFreePort(program, folder, options), lock);
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /**
   * Stops the server in order: SIGTERM, and SIGKILL at the deadline. Resolves when it is gone; may
   * be called twice.
   */
  async stop({ deadlineMs = STOP_DEADLINE_MS }: { deadlineMs?: number } = {}): Promise<void> {
    this.stopping ??= stopServer(this.server, deadlineMs);
    await this.stopping;
    await this.exited;
  }

  /** Ends the server at once, as a crash would. Resolves when it is gone. */
  async kill(): Promise<void> {
    this.server.child.kill('SIGKILL');
    await this.exited;
  }
}

/**
 * A server that runs on our folder although we hold its lock belongs to a process that was killed.
 */
async function stopLeftOver(folder: DataFolder, log: EmbeddedServerOptions['log']): Promise<void> {
  for (const leftOver of await findProcessesByArgument(`--datadir=${folder.data}`)) {
    log?.(`Replacing the ${folder.kind} server (process ${leftOver.pid}) that an earlier run left behind …`);
    await terminateProcess(leftOver, STOP_DEADLINE_MS);
  }
}

async function launchOnFreePort(
  program: ServerProgram,
  folder: DataFolder,
  options: LaunchOptions,
): Promise<ServerProcess> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await launchServer(program, folder, options);
    } catch (error) {
      // Between choosing a free port and listening on it, another program may have taken it.
      const retry = options.port === undefined && attempt < PORT_ATTEMPTS && /already in use/i.test(String(error));
      if (!retry) throw error;
    }
  }
}
