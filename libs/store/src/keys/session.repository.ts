import { NOW_MS } from '../database/clock.js';
import { type Database, unlessStored } from '../database/database.js';
import { DashboardSessionEntity } from '../entities/index.js';

/** A login to the dashboard, without its expiry. */
export type StoredSession = Omit<DashboardSessionEntity, 'expiresAt'>;

/** Sessions of one key. A further login ends the oldest of them. */
const MOST_OF_KEY = 100;
/** Expired sessions that one login removes. */
const MOST_REMOVED = 1000;

/** The people who are logged in to the dashboard. Any broker finds them here. */
export class SessionRepository {
  constructor(private readonly database: Database) {}

  /**
   * Adds a session. Removes some that have expired, and the oldest of a key that has too many.
   *
   * Locks: rows of sessions, each by a statement of its own.
   */
  async add(session: StoredSession, seconds: number): Promise<void> {
    const { manager } = this.database;
    await manager
      .createQueryBuilder()
      .insert()
      .into(DashboardSessionEntity)
      .values({ ...session, expiresAt: () => `${NOW_MS} + ${seconds * 1000}` })
      .updateEntity(false)
      .execute()
      .catch(unlessStored);
    // TypeORM's DELETE has no LIMIT.
    await this.database.write(
      `DELETE FROM dashboard_session WHERE expires_at <= ${NOW_MS} ORDER BY expires_at LIMIT ${MOST_REMOVED}`,
    );
    // By a time instead of a number of rows: logins at the same moment would each remove that many.
    const [oldest] = await manager.find(DashboardSessionEntity, {
      select: { expiresAt: true },
      where: { keyDigest: session.keyDigest },
      order: { expiresAt: 'DESC' },
      skip: MOST_OF_KEY,
      take: 1,
    });
    if (oldest === undefined) return;
    await this.database.write('DELETE FROM dashboard_session WHERE key_digest = ? AND expires_at <= ?', [
      session.keyDigest,
      oldest.expiresAt,
    ]);
  }

  /** The session with this digest, unless it has expired. */
  async find(digest: string): Promise<StoredSession | undefined> {
    const [row] = await this.database.manager
      .createQueryBuilder(DashboardSessionEntity, 'session')
      .select(['session.digest AS digest', 'session.keyId AS keyId', 'session.keyDigest AS keyDigest'])
      .where(`session.digest = :digest AND session.expiresAt > ${NOW_MS}`, { digest })
      .getRawMany<StoredSession>();
    return row;
  }

  /** Ends a session. Returns false if there was none. */
  async remove(digest: string): Promise<boolean> {
    const { affected } = await this.database.manager.delete(DashboardSessionEntity, { digest });
    return affected === 1;
  }
}
