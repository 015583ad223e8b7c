import { rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { createConnection } from 'mysql2/promise';
import { GroupCare } from './group-care.js';
import { DataFolder } from '../data-folder.js';
import { EmbeddedServer } from '../embedded-server.js';
import type { ServerProgram } from '../server-program.js';
import { type GroupFile, loadGroupFile } from './group-file.js';
import { GroupMember } from './group-member.js';

/** The privileges that RowMQ needs, on its own database. */
const PRIVILEGES = 'SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, LOCK TABLES';
const USER = 'rowmq_app';

/** How to run a group. */
export interface EmbeddedGroupOptions {
  /** Must be MySQL. */
  readonly program: ServerProgram;
  /** The members' files go below it. */
  readonly folder: string;
  /** The size of each member's buffer pool. */
  readonly bufferPoolMegabytes: number;
  /** Told what takes long and what was found. */
  readonly log?: ((line: string) => void) | undefined;
}

/**
 * Three MySQL servers on this machine that replicate each other as one group (Group Replication,
 * single primary). One may die, hang or be cut off: the others go on, with another primary if it
 * was that one.
 */
export class EmbeddedGroup {
  readonly members: readonly GroupMember[];
  /** Forms the group, and keeps its members together. */
  readonly care: GroupCare;
  /**
   * Names all members, and a user who has what RowMQ needs on its own database and nothing else.
   */
  readonly url: string;

  private constructor(private readonly options: EmbeddedGroupOptions & { file: GroupFile }) {
    const { file, log } = options;
    this.members = file.members.map((_, index) => new GroupMember(options, index));
    this.care = new GroupCare(this.members, log);
    const hosts = file.members.map(({ port }) => `127.0.0.1:${port}`).join(',');
    this.url = `mysql://${USER}:${file.password}@${hosts}/rowmq`;
  }

  /**
   * Prepares a group on this folder: makes its members' data where there is none. None runs yet,
   * and none may run.
   */
  static async prepare(options: EmbeddedGroupOptions, signal?: AbortSignal): Promise<EmbeddedGroup> {
    if (options.program.kind !== 'mysql') throw new Error('Group replication is MySQL’s: a MySQL server is needed.');
    const folder = resolve(options.folder);
    const group = new EmbeddedGroup({ ...options, folder, file: await loadGroupFile(folder) });
    const missing: GroupMember[] = [];
    for (const member of group.members) if (!(await member.exists())) missing.push(member);
    if (missing.length > 0) await group.make(missing, signal);
    return group;
  }

  /** The member that takes writes; undefined while there is none. */
  async primary(): Promise<GroupMember | undefined> {
    const primary = await this.care.primary();
    return this.members.find((member) => member === primary);
  }

  /** Ends every member at once. */
  async kill(): Promise<void> {
    await Promise.all(this.members.map(async (member) => member.server?.kill()));
  }

  /**
   * Members begin as copies of one server that is in no group and writes no binlog. So they share
   * accounts and have no transactions of their own, which would keep them from joining.
   */
  private async make(members: readonly GroupMember[], signal?: AbortSignal): Promise<void> {
    const { program, folder, file, bufferPoolMegabytes, log } = this.options;
    log?.(`Making the data of ${members.length} servers in ${folder} …`);
    const dataDir = join(folder, 'template');
    await rm(dataDir, { recursive: true, force: true });
    const server = await EmbeddedServer.start({
      program,
      dataDir,
      password: file.password,
      bufferPoolMegabytes,
      extraArguments: ['--skip-log-bin'],
      signal,
    });
    try {
      const connection = await createConnection({ uri: server.url });
      await connection.query(`CREATE USER ${USER}@'127.0.0.1' IDENTIFIED BY '${file.password}'`);
      await connection.query(`GRANT ${PRIVILEGES} ON rowmq.* TO ${USER}@'127.0.0.1'`);
      // With which a member fetches from another what it lacks.
      await connection.query(
        `CHANGE REPLICATION SOURCE TO SOURCE_USER = 'rowmq', SOURCE_PASSWORD = '${file.password}' FOR CHANNEL 'group_replication_recovery'`,
      );
      await connection.end();
    } finally {
      await server.stop();
    }
    for (const member of members) await member.copyFrom(new DataFolder(dataDir, program.kind));
    await rm(dataDir, { recursive: true, force: true });
  }
}
