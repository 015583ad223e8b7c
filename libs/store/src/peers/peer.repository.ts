import { In, Raw } from 'typeorm';
import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import { BrokerEntity } from '../entities/index.js';

/** A broker process as the others reach it. */
export interface Peer {
  /** A UUID that the process made at its start. */
  id: string;
  /** The address for hints. */
  url: string;
  /** The secret that a hint to this broker must carry. */
  token: string;
}

/** A broker is gone if it has been silent for this long, by the database's clock. */
export const PEER_SILENCE_MS = 10_000;
/** Bounds what one heartbeat reads. */
const MOST_PEERS = 1000;
/** Bounds what one heartbeat removes. */
const MOST_REMOVED = 100;

/** The brokers of this database. Each one registers itself and finds the others here. */
export class PeerRepository {
  constructor(private readonly database: Database) {}

  /**
   * Registers this broker, or says that it still runs. Returns the other live brokers. Removes some
   * rows of brokers that are gone, its own predecessor at the same address included.
   */
  async heartbeat(self: Peer, pressure = 0): Promise<Peer[]> {
    await this.database.manager
      .createQueryBuilder()
      .insert()
      .into(BrokerEntity)
      .values({ ...self, pressure, heartbeatAt: () => NOW_MS })
      .orUpdate(['pressure', 'heartbeat_at'], ['id'])
      .updateEntity(false)
      .execute();
    const rows = await this.database.manager
      .createQueryBuilder(BrokerEntity, 'broker')
      .select(['broker.id AS id', 'broker.url AS url', 'broker.token AS token'])
      .addSelect(`broker.heartbeatAt > ${NOW_MS} - ${PEER_SILENCE_MS}`, 'isLive')
      .where('broker.id <> :id', { id: self.id })
      .orderBy('broker.id')
      .limit(MOST_PEERS)
      .getRawMany<Peer & { isLive: number }>();
    const live: Peer[] = [];
    const gone: string[] = [];
    for (const { isLive, ...peer } of rows) {
      if (Number(isLive) === 1 && peer.url !== self.url) live.push(peer);
      else gone.push(peer.id);
    }
    if (gone.length > 0) await this.removeGone(gone.slice(0, MOST_REMOVED), self.url);
    return live;
  }

  /** The live brokers. */
  async live(): Promise<Peer[]> {
    return this.database.manager.find(BrokerEntity, {
      select: { id: true, url: true, token: true },
      where: { heartbeatAt: Raw((column) => `${column} > ${NOW_MS} - ${PEER_SILENCE_MS}`) },
      order: { id: 'ASC' },
      take: MOST_PEERS,
    });
  }

  /** Removes a broker that stops. */
  async forget(id: string): Promise<void> {
    await this.database.manager.delete(BrokerEntity, { id });
  }

  /** A broker that has come back since the read keeps its row. */
  private async removeGone(ids: string[], url: string): Promise<void> {
    await this.database.manager.delete(BrokerEntity, [
      { id: In(ids), url },
      { id: In(ids), heartbeatAt: Raw((column) => `${column} <= ${NOW_MS} - ${PEER_SILENCE_MS}`) },
    ]);
  }
}
