import type { RowmqHttpClient } from '@rowmq/client/core';
import { messageIdTime, parseMessageId } from '@rowmq/contract';
import type { Connection } from 'mysql2/promise';
import { HOUR, MINUTE } from '../../support/partitions.js';
import type { Fault } from './fault.js';
import type { FaultRig } from './rig.js';

/*
 * Faults that last as long as the load runs.
 */

export const CONSUMERS_DIE: Fault = {
  name: 'consumers die with leases, or hang up before they got them',
  expected:
    'The broker releases the leases of consumers that hung up. The other messages come again when their leases run out, and receiveCount shows it.',
  mayEndIn: [],
  // At the usual rate, enough hang-ups take a minute.
  load: { rate: 500, crashRate: 0.3, slowRate: 0.1 },
  hasStruck: ({ vanished, hungUp }) => vanished > 20 && hungUp > 20,
};

/** Shifts the time of day of a process. `Date` is its only access to the machine's clock. */
function clockOff(ms: number): Record<string, string> {
  const source = `const Real = Date;
    globalThis.Date = class extends Real {
      constructor(...given) { given.length > 0 ? super(...given) : super(Real.now() + ${ms}); }
      static now() { return Real.now() + ${ms}; }
    };`;
  return { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(source)}` };
}

export const CLOCKS_OFF: Fault = {
  name: "brokers' clocks an hour ahead and an hour behind",
  expected:
    "Brokers' clocks stamp only ids. Availability, leases and expiry follow the database's clock. Ids fall into other partitions, which stay while a message in them is owed.",
  mayEndIn: [],
  prepare: async (rig) => {
    const restart = async (env: Record<string, string>[]): Promise<void> => {
      const restarted = rig.brokers.map(async (broker, index) => {
        await broker.stop();
        await broker.start(env[index]);
      });
      await Promise.all(restarted);
    };
    const offs = [HOUR, -HOUR];
    const check = async (): Promise<void> => {
      for (const [index, client] of rig.clients.entries()) {
        const off = await offOf(client);
        if (Math.abs(off - (offs[index] as number)) > MINUTE) {
          throw new Error(`the clock of broker ${index + 1} is off by ${off} ms`);
        }
      }
    };
    await restart(offs.map(clockOff));
    await check();
    return { check, undo: () => restart([]) };
  },
};

/**
 * The error of a broker's clock in ms. It shows in the id of a message that is enqueued there, in a
 * queue of its own.
 */
async function offOf(client: RowmqHttpClient): Promise<number> {
  const queue = `clock-${Date.now()}`;
  await client.putQueue(queue);
  const { messages } = await client.enqueue(queue, { messages: [{ body: '' }] });
  await client.deleteQueue(queue, { force: true });
  return messageIdTime(parseMessageId(messages[0]?.id ?? '')) - Date.now();
}

/** The load makes queues of its own. */
const LAST_QUEUE = 'SELECT MAX(id) AS last FROM queue';

/**
 * A transaction with a snapshot of the database. While it is open, the server cannot purge older
 * versions of changed rows.
 */
export class Snapshot {
  private constructor(
    private readonly rig: FaultRig,
    private connection: Connection,
    private lastQueue: number,
  ) {}

  static async take(rig: FaultRig): Promise<Snapshot> {
    return new Snapshot(rig, ...(await open(rig)));
  }

  /** Takes the snapshot again if it was lost with the server. */
  async keep(): Promise<void> {
    if (await this.isOpen()) return;
    this.connection.destroy();
    [this.connection, this.lastQueue] = await open(this.rig);
  }

  /**
   * Throws unless it has been open since it was taken, although the load has changed much, and the
   * server has kept that.
   */
  async check(): Promise<void> {
    if (!(await this.isOpen())) throw new Error('the snapshot was lost');
    const [queue] = await this.rig.admin<{ last: number }>(LAST_QUEUE);
    if (Number(queue?.last) === this.lastQueue) throw new Error('nothing has changed since the snapshot was taken');
    const [kept] = await this.rig.admin<{ n: number }>(
      "SELECT `COUNT` AS n FROM information_schema.INNODB_METRICS WHERE NAME = 'trx_rseg_history_len'",
    );
    if (Number(kept?.n) === 0) throw new Error('everything was purged');
  }

  letGo(): void {
    this.connection.destroy();
  }

  /** Whether the transaction still sees the first state. */
  private async isOpen(): Promise<boolean> {
    return lastQueueOf(this.connection).then(
      (last) => last === this.lastQueue,
      () => false,
    );
  }
}

async function open(rig: FaultRig): Promise<[Connection, number]> {
  const connection = await rig.connect();
  await connection.query('SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ');
  await connection.query('START TRANSACTION WITH CONSISTENT SNAPSHOT');
  return [connection, await lastQueueOf(connection)];
}

async function lastQueueOf(connection: Connection): Promise<number> {
  const [rows] = await connection.query(LAST_QUEUE);
  return Number((rows as { last: number }[])[0]?.last);
}

export const PURGE_STALLED: Fault = {
  name: 'a snapshot held open, so that nothing is purged',
  expected:
    'Claims peek and lock from their scan floors on and keep their speed. The regular rescan finds deliveries below a floor.',
  mayEndIn: [],
  prepare: async (rig) => {
    const snapshot = await Snapshot.take(rig);
    return { check: () => snapshot.check(), undo: async () => snapshot.letGo() };
  },
};
