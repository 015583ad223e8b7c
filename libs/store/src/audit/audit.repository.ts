import type { AuditQuery } from '@rowmq/contract';
import { LessThanOrEqual } from 'typeorm';
import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import { AuditEntity } from '../entities/index.js';

export type AuditRow = Omit<AuditEntity, 'id' | 'at'>;

/** Bounds the table whatever happens. Older rows go. */
const MOST_ROWS = 1_000_000;
const DAY_MS = 86_400_000;

/** The actions of administrators. */
export class AuditRepository {
  constructor(private readonly database: Database) {}

  /**
   * Writes actions down, with the database's time. A repeat after a COMMIT without an answer may
   * write them twice; the request id tells.
   */
  async add(rows: readonly AuditRow[]): Promise<void> {
    await this.database.manager
      .createQueryBuilder()
      .insert()
      .into(AuditEntity)
      .values(rows.map((row) => ({ ...row, at: () => NOW_MS })))
      .updateEntity(false)
      .execute();
  }

  /** A page of actions, the latest first, and whether there are more. */
  async list(query: AuditQuery): Promise<{ rows: AuditEntity[]; isLast: boolean }> {
    const { limit, after, action, key, path, refused, from, to } = query;
    const wanted = this.database.manager
      .createQueryBuilder(AuditEntity, 'audit')
      .orderBy('audit.id', 'DESC')
      .limit(limit + 1);
    if (after !== undefined) wanted.andWhere('audit.id < :after', { after: Number(after) });
    if (action !== undefined) wanted.andWhere('audit.action = :action', { action });
    if (key !== undefined) wanted.andWhere('audit.key_name = :key', { key });
    if (path !== undefined) wanted.andWhere('LEFT(audit.path, CHAR_LENGTH(:path)) = :path', { path });
    if (refused !== undefined) wanted.andWhere(`audit.problem IS ${refused === 'true' ? 'NOT NULL' : 'NULL'}`);
    if (from !== undefined) wanted.andWhere('audit.at >= :from', { from: Date.parse(from) });
    if (to !== undefined) wanted.andWhere('audit.at < :to', { to: Date.parse(to) });
    const found = await wanted.getMany();
    return { rows: found.slice(0, limit), isLast: found.length <= limit };
  }

  /**
   * Removes some of the actions that are older than this, or that exceed a million. Returns their
   * number.
   *
   * Locks: rows by id, ascending, that nobody else locks.
   */
  async prune(days: number, rows: number): Promise<number> {
    const oldest = await this.database.manager
      .createQueryBuilder(AuditEntity, 'audit')
      .select(['audit.id AS id', `audit.at <= ${NOW_MS} - ${days * DAY_MS} AS isOld`])
      .orderBy('audit.id')
      .limit(rows)
      .getRawMany<{ id: number; isOld: number }>();
    if (oldest.length === 0) return 0;
    const last = await this.database.manager
      .createQueryBuilder(AuditEntity, 'audit')
      .select('MAX(audit.id)', 'id')
      .getRawOne<{ id: number }>();
    const kept = Number(last?.id) - MOST_ROWS;
    const gone = oldest.findLast(({ id, isOld }) => Number(isOld) === 1 || Number(id) <= kept);
    if (gone === undefined) return 0;
    const { affected } = await this.database.manager.delete(AuditEntity, { id: LessThanOrEqual(Number(gone.id)) });
    return affected ?? 0;
  }
}
