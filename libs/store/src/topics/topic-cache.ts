import type { Database } from '../database/database.js';
import { groupBy } from '../group-by.js';
import { type QueueRow, SELECT_QUEUE, toQueue } from '../queues/queue.js';
import { readFilter, type Topic, topicNotFound } from './topic.js';

/** A broker may weigh a publish by subscriptions of this long ago. It never stores by them. */
const CACHE_MS = 1000;
/** Bounds the cache. A topic has up to 200 subscriptions with the settings of their queues. */
const TOPICS_REMEMBERED = 1000;

/** A topic with one of its subscriptions, or without any. */
interface TopicRow {
  id: number;
  name: string;
  deduplicationSeconds: number;
  version: number;
  queueId: number | null;
  filter: string | null;
}

/**
 * The topics that a broker publishes to, with their subscriptions and the settings of their queues,
 * at most one second old. A publish names the versions of all of them, and stores nothing if one
 * has changed since.
 */
export class TopicCache {
  private readonly cached = new Map<string, { topic: Topic; until: number }>();

  constructor(private readonly database: Database) {}

  /** Throws `topic-not-found`. */
  async get(name: string): Promise<Topic> {
    const topic = (await this.getAll([name])).get(name);
    if (topic === undefined) throw topicNotFound(name);
    return topic;
  }

  /** Returns those of these topics that exist, by name. */
  async getAll(names: readonly string[]): Promise<Map<string, Topic>> {
    const now = performance.now();
    const found = new Map<string, Topic>();
    const stale: string[] = [];
    for (const name of names) {
      const known = this.cached.get(name);
      if (known !== undefined && known.until > now) found.set(name, known.topic);
      else stale.push(name);
    }
    if (stale.length === 0) return found;
    for (const name of stale) this.cached.delete(name);
    for (const topic of await readTopics(this.database, stale)) {
      if (this.cached.size >= TOPICS_REMEMBERED) this.cached.clear();
      this.cached.set(topic.name, { topic, until: performance.now() + CACHE_MS });
      found.set(topic.name, topic);
    }
    return found;
  }

  /** The next publish to this topic reads it afresh. */
  evict(name: string): void {
    this.cached.delete(name);
  }
}

/**
 * Reads topics, then the queues of their subscriptions, in one round trip. A change between the two
 * statements counts a version on, so no publish can rest on both sides of it. The subscription of a
 * deleted queue has ended.
 */
async function readTopics(database: Database, names: readonly string[]): Promise<Topic[]> {
  const [rows, queues] = (await database.all([
    {
      sql: `SELECT t.id, t.name, t.deduplication_seconds AS deduplicationSeconds, t.version,
            s.queue_id AS queueId, s.filter
     FROM topic t FORCE INDEX (topic_by_name)
     LEFT JOIN subscription s FORCE INDEX (PRIMARY) ON s.topic_id = t.id
     WHERE t.name IN (?)`,
      values: [names],
    },
    {
      sql: `${SELECT_QUEUE} FORCE INDEX (PRIMARY)
     WHERE name IS NOT NULL
       AND id IN (SELECT s.queue_id FROM topic t JOIN subscription s ON s.topic_id = t.id WHERE t.name IN (?))`,
      values: [names],
    },
  ])) as [TopicRow[], QueueRow[]];
  const queueOf = new Map(queues.map((row) => [row.id, toQueue(row)]));
  return [...groupBy(rows, ({ id }) => id).values()].map((group) => {
    const [{ id, name, deduplicationSeconds, version }] = group as [TopicRow];
    const subscriptions = group
      .toSorted((one, other) => Number(one.queueId) - Number(other.queueId))
      .flatMap(({ queueId, filter }) => {
        const queue = queueId === null ? undefined : queueOf.get(queueId);
        return queue === undefined ? [] : { queue, filter: readFilter(filter) };
      });
    return { id, name, deduplicationSeconds, version, subscriptions };
  });
}
