import type { DatabaseTls } from '@rowmq/runtime';
import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise';

const CONNECT_DEADLINE_MS = 2000;
const PROBE_DEADLINE_MS = 5000;
/** Joining counts in what the server has to fetch from the others. */
const JOIN_DEADLINE_MS = 5 * 60_000;

/** The state that a server reports. */
export interface MemberState {
  /** `OFFLINE`: runs, but not in a group; `ERROR`: had to leave it. */
  state: 'ONLINE' | 'RECOVERING' | 'OFFLINE' | 'ERROR' | 'UNREACHABLE';
  isPrimary: boolean;
  readOnly: boolean;
  /** Whether it hears most of its group. */
  hasMajority: boolean;
  /** Its identity. */
  uuid: string;
  /** The number of its group's members, as it knows them. */
  members: string[];
  /**
   * The number of members that it believes to be `ONLINE`. A server that was cut off may not know
   * better yet.
   */
  online: number;
  /** Every transaction it has, those included that it received and has yet to apply. */
  transactions: string;
}

/**
 * One server of a group (Group Replication), for its administrator. Each call opens a connection,
 * and throws when the server cannot be asked.
 */
export class GroupServer {
  /**
   * @param name for people
   * @param url URL of a user with every right
   * @param tls how connections are encrypted; undefined: not at all
   */
  constructor(
    readonly name: string,
    readonly url: string,
    private readonly tls?: DatabaseTls,
  ) {}

  /** Asks the server for its state. */
  async probe(): Promise<MemberState> {
    return this.use(async (connection) => {
      const [[row]] = await connection.query<RowDataPacket[]>({
        sql: `SELECT COALESCE(own.member_state, 'OFFLINE') AS state, COALESCE(own.member_role, '') AS role,
                     @@GLOBAL.super_read_only AS readOnly, @@GLOBAL.server_uuid AS uuid, members.uuids, members.heard, members.online,
                     CONCAT_WS(',', NULLIF(@@GLOBAL.gtid_executed, ''), NULLIF(received.received_transaction_set, '')) AS transactions
              FROM (SELECT GROUP_CONCAT(member_id) AS uuids, SUM(member_state <> 'UNREACHABLE') AS heard, SUM(member_state = 'ONLINE') AS online
                    FROM performance_schema.replication_group_members) AS members
              LEFT JOIN performance_schema.replication_group_members AS own
                ON own.member_id = @@GLOBAL.server_uuid
              LEFT JOIN performance_schema.replication_connection_status AS received
                ON received.channel_name = 'group_replication_applier'`,
        timeout: PROBE_DEADLINE_MS,
      });
      const members = String(row?.['uuids'] ?? '').split(',');
      return {
        state: row?.['state'],
        isPrimary: row?.['role'] === 'PRIMARY' && row['state'] === 'ONLINE',
        readOnly: Number(row?.['readOnly']) === 1,
        hasMajority: Number(row?.['heard']) * 2 > members.length,
        uuid: row?.['uuid'],
        members,
        online: Number(row?.['online']),
        transactions: row?.['transactions'],
      };
    });
  }

  /** Takes it into the group that there is. */
  async join(): Promise<void> {
    await this.use(async (connection) => {
      // Does nothing to one that is in no group; one that had to leave is still half in it.
      await connection.query({ sql: 'STOP GROUP_REPLICATION', timeout: JOIN_DEADLINE_MS });
      await connection.query({ sql: 'START GROUP_REPLICATION', timeout: JOIN_DEADLINE_MS });
    });
  }

  /**
   * Makes it the first member of the group, unless it is in one by now or somebody else is about
   * to. Only where no other is in it: there would be two groups.
   */
  async bootstrap(): Promise<void> {
    await this.use(async (connection) => {
      if (!(await reserveTurn(connection))) return;
      await connection.query({ sql: 'STOP GROUP_REPLICATION', timeout: JOIN_DEADLINE_MS });
      await connection.query('SET GLOBAL group_replication_bootstrap_group = ON');
      try {
        await connection.query({ sql: 'START GROUP_REPLICATION', timeout: JOIN_DEADLINE_MS });
      } finally {
        await connection.query('SET GLOBAL group_replication_bootstrap_group = OFF');
      }
    });
  }

  /** Whether these transactions are all among those. Any server can tell. */
  async isSubset(these: string, those: string): Promise<boolean> {
    return this.use(async (connection) => {
      const [[row]] = await connection.query<RowDataPacket[]>('SELECT GTID_SUBSET(?, ?) AS isSubset', [these, those]);
      return Number(row?.['isSubset']) === 1;
    });
  }

  private async use<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = await createConnection({
      uri: this.url,
      connectTimeout: CONNECT_DEADLINE_MS,
      ...(this.tls && { ssl: this.tls }),
    });
    try {
      // Else it would wait for what a new primary has yet to apply.
      const sql = `SET SESSION group_replication_consistency = 'EVENTUAL'`;
      await connection.query({ sql, timeout: PROBE_DEADLINE_MS });
      return await work(connection);
    } finally {
      connection.destroy();
    }
  }
}

/**
 * Reserves the bootstrap for as long as the connection lives. False when another has the turn, or
 * had it since the last probe: then the server is in a group.
 */
async function reserveTurn(connection: Connection): Promise<boolean> {
  const [[turn]] = await connection.query<RowDataPacket[]>(`SELECT GET_LOCK('rowmq_bootstrap', 0) AS isOurs`);
  if (Number(turn?.['isOurs']) !== 1) return false;
  const [members] = await connection.query<RowDataPacket[]>(
    `SELECT 1 FROM performance_schema.replication_group_members
     WHERE member_id = @@GLOBAL.server_uuid AND member_state NOT IN ('OFFLINE', 'ERROR')`,
  );
  return members.length === 0;
}
