import { cp, mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { GroupServer } from './group-server.js';
import { DataFolder } from '../data-folder.js';
import { EmbeddedServer } from '../embedded-server.js';
import type { ServerProgram } from '../server-program.js';
import type { GroupFile } from './group-file.js';
import { memberArguments } from './group-settings.js';

/** How to run the members of one group. */
export interface MemberOptions {
  readonly program: ServerProgram;
  /** The group's folder. */
  readonly folder: string;
  readonly file: GroupFile;
  readonly bufferPoolMegabytes: number;
  readonly log?: ((line: string) => void) | undefined;
}

/** One embedded server of a group, on a folder of its own. Its process comes and goes. */
export class GroupMember extends GroupServer {
  readonly number: number;
  readonly port: number;
  /** For the other members. */
  readonly groupPort: number;
  private running: EmbeddedServer | undefined;

  constructor(
    private readonly options: MemberOptions,
    private readonly index: number,
  ) {
    const { password, members } = options.file;
    const { port, groupPort } = members[index] as GroupFile['members'][number];
    super(`server ${index + 1} (port ${port})`, `mysql://rowmq:${password}@127.0.0.1:${port}/rowmq`);
    this.number = index + 1;
    this.port = port;
    this.groupPort = groupPort;
  }

  /** Its process, while it runs. */
  get server(): EmbeddedServer | undefined {
    return this.running;
  }

  /** Whether it has data. */
  async exists(): Promise<boolean> {
    return this.dataFolder().isInitialised();
  }

  /** Gives it a copy of a stopped server's data, which knows nothing of groups. */
  async copyFrom(template: DataFolder): Promise<void> {
    const folder = this.dataFolder();
    const unfinished = `${folder.data}.unfinished`;
    await folder.create();
    await rm(unfinished, { recursive: true, force: true });
    await mkdir(unfinished, { mode: 0o700 });
    await cp(template.data, unfinished, { recursive: true });
    // The server's identity: the next start makes another.
    await rm(join(unfinished, 'auto.cnf'), { force: true });
    await rename(unfinished, folder.data);
  }

  /**
   * Starts its process, which then is read-only and in no group. Throws like {@link
   * EmbeddedServer.start}.
   */
  async start(signal?: AbortSignal): Promise<EmbeddedServer> {
    const { program, file, bufferPoolMegabytes, log } = this.options;
    const server = await EmbeddedServer.start({
      program,
      dataDir: this.dataDir,
      port: this.port,
      password: file.password,
      bufferPoolMegabytes,
      // They are in the copied folder; made again at each start they would be changes that the
      // group does not know.
      keepAccounts: true,
      extraArguments: memberArguments(file, this.index),
      signal,
      log,
    });
    this.running = server;
    void this.forgetWhenGone(server);
    return server;
  }

  private async forgetWhenGone(server: EmbeddedServer): Promise<void> {
    await server.exited;
    if (this.running === server) this.running = undefined;
  }

  private get dataDir(): string {
    return join(this.options.folder, `server-${this.number}`);
  }

  private dataFolder(): DataFolder {
    return new DataFolder(this.dataDir, 'mysql');
  }
}
