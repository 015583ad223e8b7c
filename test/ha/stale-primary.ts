import { packIdOf, parseMessageId } from '@rowmq/contract';
import type { GroupMember } from '@rowmq/mysql-server';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import { expect } from 'vitest';
import { Api, type QueueApi } from '../support/api.js';
import { eventually } from '../support/wait.js';
import { DEADLINE_MS, type HaRig, serverOf } from './rig.js';

/** The level that docs/high-availability.md asks for. */
export const CONSISTENCY = 'BEFORE_ON_PRIMARY_FAILOVER';

/** Sets the consistency of a member's new connections. */
async function setConsistency(rig: HaRig, member: GroupMember, level: string): Promise<void> {
  const connection = await rig.admin(member);
  await connection.query('SET GLOBAL group_replication_consistency = ?', [level]);
  connection.destroy();
}

/** Reads the consistency of a member's new connections. */
export async function consistencyOf(rig: HaRig, member: GroupMember): Promise<string> {
  const connection = await rig.admin(member);
  const [[row]] = await connection.query<RowDataPacket[]>('SELECT @@GLOBAL.group_replication_consistency AS level');
  connection.destroy();
  return row?.['level'];
}

/** A lease that the killed primary had confirmed. */
interface Confirmed {
  queue: QueueApi;
  receipt: string;
}

/**
 * Kills the primary after it confirmed a message and its lease. Neither of the other members has
 * applied them. Calls `observe` while one of these is the primary and still behind. Returns when
 * the group is whole again.
 *
 * @param level the consistency that the members give to new connections.
 */
export async function failOverToLaggard(
  rig: HaRig,
  level: string,
  observe: (id: string) => Promise<void>,
): Promise<Confirmed> {
  const primary = await rig.primary();
  const queue = new Api(rig.brokerUrls[0] as string).queue(`behind-${level}`);
  await queue.put({ leaseSeconds: 3600 });
  const laggards = await Laggards.stop(rig, primary);
  try {
    for (const heir of laggards.members) await setConsistency(rig, heir, level);
    const [id] = (await queue.enqueue('owed')) as [string];
    const { receipt } = await queue.dequeueOne();
    await serverOf(primary).kill();
    const heir = await rig.primary(primary);
    expect(await laggards.count(heir, id)).toBe(0);
    await observe(id);
    expect(await laggards.count(heir, id)).toBe(0);
    laggards.goOn();
    await rig.prober.recovered(performance.now(), DEADLINE_MS);
    return { queue, receipt };
  } finally {
    laggards.goOn();
    if (primary.server === undefined) await primary.start();
    await rig.whole();
    for (const member of rig.group.members) await setConsistency(rig, member, CONSISTENCY);
  }
}

/**
 * Secondary members of a group that receive the primary's transactions but do not apply them. A
 * change of a table waits for a reader, and every later transaction waits for the change.
 */
class Laggards {
  private constructor(
    readonly members: readonly GroupMember[],
    private readonly readers: readonly Connection[],
    private readonly observers: readonly Connection[],
  ) {}

  static async stop(rig: HaRig, primary: GroupMember): Promise<Laggards> {
    const members = rig.group.members.filter((member) => member !== primary);
    const open = async (member: GroupMember): Promise<Connection> => {
      const connection = await rig.admin(member);
      // This connection gets answers even while the member makes others wait.
      await connection.query(`SET SESSION group_replication_consistency = 'EVENTUAL'`);
      return connection;
    };
    const [changer, ...connections] = await Promise.all([primary, ...members, ...members].map((one) => open(one)));
    const laggards = new Laggards(members, connections.slice(0, members.length), connections.slice(members.length));
    try {
      await changer?.query('CREATE TABLE IF NOT EXISTS ha_lag (id INT PRIMARY KEY)');
      for (const reader of laggards.readers) {
        await eventually('the table is there', () => answers(reader, 'SELECT id FROM ha_lag'), DEADLINE_MS);
        await reader.query('START TRANSACTION');
        await reader.query('SELECT id FROM ha_lag');
      }
      await changer?.query(`ALTER TABLE ha_lag COMMENT = 'changed'`);
      return laggards;
    } catch (error) {
      laggards.goOn();
      throw error;
    } finally {
      changer?.destroy();
    }
  }

  /** Counts the deliveries of a message's pack that a member has applied. */
  async count(member: GroupMember, id: string): Promise<number> {
    const observer = this.observers[this.members.indexOf(member)];
    const sql = 'SELECT COUNT(*) AS n FROM delivery WHERE pack_id = ?';
    const [[row]] = (await observer?.query<RowDataPacket[]>(sql, [packIdOf(parseMessageId(id))])) ?? [[]];
    return Number(row?.['n']);
  }

  /** Lets the members apply the transactions that they received. */
  goOn(): void {
    for (const connection of [...this.readers, ...this.observers]) connection.destroy();
  }
}

async function answers(connection: Connection, sql: string): Promise<boolean> {
  return connection.query(sql).then(
    () => true,
    () => false,
  );
}
