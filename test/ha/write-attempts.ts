import { setTimeout as sleep } from 'node:timers/promises';
import type { GroupMember } from '@rowmq/mysql-server';
import { type Connection, createConnection } from 'mysql2/promise';
import { eventually } from '../support/wait.js';

const HELD = 4;
const EVERY_MS = 20;
/** The test abandons a longer wait of a commit for its group. Nobody confirmed such a write. */
const STATEMENT_MS = 2000;
/** The errors of a member that takes no writes, or whose group rejects this write. */
const REFUSED = new Set([
  1290, // read-only
  3100, // at its commit
  3101, // the same, by certification
]);

/**
 * A user with every right who keeps trying to write on one member. Statements on old connections
 * reach a frozen member as soon as it wakes. Others go over new connections, again and again.
 */
export class WriteAttempts {
  /** Writes that the member confirmed. */
  readonly accepted: string[] = [];
  /** The member's errors, with a count of each. */
  readonly refusals = new Map<string, number>();
  /**
   * Attempts that the member refused. Broken and abandoned ones do not count.
   */
  refusedByMember = 0;
  #going = true;
  #working: Promise<unknown> | undefined;

  private constructor(
    private readonly member: GroupMember,
    private readonly held: readonly Connection[],
  ) {}

  /**
   * Opens the old connections while the member is healthy, and makes `ha_marker` an empty table.
   */
  static async prepare(member: GroupMember): Promise<WriteAttempts> {
    const held = await Promise.all(Array.from({ length: HELD }, () => open(member)));
    await held[0]?.query('CREATE TABLE IF NOT EXISTS ha_marker (note VARCHAR(60) PRIMARY KEY)');
    await held[0]?.query('DELETE FROM ha_marker');
    return new WriteAttempts(member, held);
  }

  /** Begins to write. */
  begin(): void {
    const onHeld = this.held.map(async (connection, index) => {
      for (let time = 0; this.#going && time < 1000; time += 1) {
        if (!(await this.#write(connection, `held ${index} ${time}`))) return;
        await sleep(EVERY_MS);
      }
    });
    const onNew = Array.from({ length: 2 }, async (_, index) => {
      for (let time = 0; this.#going; time += 1) {
        const connection = await open(this.member).catch((error: unknown) => this.#refused(error));
        if (connection !== undefined) await this.#write(connection, `new ${index} ${time}`);
        connection?.destroy();
        await sleep(EVERY_MS);
      }
    });
    this.#working = Promise.all([...onHeld, ...onNew]);
  }

  /** Waits until the member refuses a further attempt. */
  async refused(deadlineMs: number): Promise<void> {
    const before = this.refusedByMember;
    await eventually(
      () => `the member refuses a write; it said: ${this.told()}`,
      () => this.refusedByMember > before,
      deadlineMs,
    );
  }

  /** Ends, and waits for the attempts in flight. */
  async end(): Promise<void> {
    this.#going = false;
    await this.#working;
    for (const connection of this.held) connection.destroy();
  }

  /** The member's errors, in one line. */
  told(): string {
    return [...this.refusals].map(([what, times]) => `${times} ${what}`).join(', ');
  }

  /** Returns whether the connection may be used again. */
  async #write(connection: Connection, note: string): Promise<boolean> {
    try {
      await connection.query({ sql: 'INSERT INTO ha_marker (note) VALUES (?)', values: [note], timeout: STATEMENT_MS });
      this.accepted.push(note);
      return true;
    } catch (error) {
      this.#refused(error);
      const { fatal, code } = error as { fatal?: boolean; code?: string };
      return fatal !== true && code !== 'PROTOCOL_SEQUENCE_TIMEOUT';
    }
  }

  #refused(error: unknown): undefined {
    const { code, errno, message } = error as { code?: string; errno?: number; message: string };
    if (errno !== undefined && REFUSED.has(errno)) this.refusedByMember += 1;
    const what = code ?? message;
    this.refusals.set(what, (this.refusals.get(what) ?? 0) + 1);
  }
}

async function open(member: GroupMember): Promise<Connection> {
  const connection = await createConnection({ uri: member.url, connectTimeout: 2000 });
  connection.on('error', () => undefined);
  return connection;
}
