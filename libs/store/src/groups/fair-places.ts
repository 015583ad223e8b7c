import { FairLine } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import { groupBy } from '../group-by.js';
import { peekStatement } from '../messages/peek.sql.js';
import type { Packable } from '../messages/packing.js';
import type { Queue } from '../queues/queue.js';

/** Lines that a broker remembers: one for each priority of a queue. */
const LINES_REMEMBERED = 100;

/**
 * Gives new messages with a group their places in queues without ordering, see {@link FairLine}.
 * The place is the message's `available_at`, so claims know nothing of groups.
 */
export class FairPlaces {
  /** The one that was used last comes last. */
  private readonly lines = new Map<string, FairLine>();

  constructor(private readonly database: Database) {}

  /**
   * Sets the places of those messages that have a group and no delay. One round trip without locks
   * reads the first ready message of every line, or there is none if no message has a group.
   */
  async give(batches: readonly { queue: Queue; messages: readonly Packable[] }[]): Promise<void> {
    const wanted = batches.flatMap(({ queue, messages }) => {
      const joining = messages.filter(({ groupId, delayMs }) => groupId !== undefined && delayMs === 0);
      return [...groupBy(joining, ({ priorityRank }) => priorityRank)].map(([rank, ofRank]) => ({
        queueId: queue.id,
        rank,
        line: this.lineOf(`${queue.id} ${rank}`),
        messages: ofRank,
      }));
    });
    if (wanted.length === 0) return;
    const [[clock], ...firsts] = (await this.database.all([
      { sql: `SELECT ${NOW_MS} AS now` },
      ...wanted.map(({ queueId, rank, line }) => peekStatement(queueId, new Map([[rank, line.head]]), 1)),
    ])) as [[{ now: number }], ...{ availableAt: number }[][]];
    for (const [index, { line, messages }] of wanted.entries()) {
      const first = firsts[index]?.[0]?.availableAt;
      for (const message of messages) message.availableAt = line.place(message.groupId as string, first, clock.now);
    }
  }

  private lineOf(key: string): FairLine {
    const line = this.lines.get(key) ?? new FairLine();
    this.lines.delete(key);
    this.lines.set(key, line);
    const [oldest] = this.lines.keys();
    if (this.lines.size > LINES_REMEMBERED && oldest !== undefined) this.lines.delete(oldest);
    return line;
  }
}
