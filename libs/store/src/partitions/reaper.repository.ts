import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import type { ReaperLeaseEntity } from '../entities/index.js';

/** What one run of a duty did. */
export interface ReaperRun {
  duty: string;
  reaper: string;
  /** ms since 1970, on the reaper's clock. */
  startedAt: number;
  durationMs: number;
  count: number;
  error: string | null;
}

/** How a duty has fared, by those of its runs that are kept. */
export interface DutyState {
  duty: string;
  /** Since a run of it last succeeded, ms; if none of them did, since the first of them began. */
  lastSuccessAgeMs: number;
  /** Rows or partitions it took care of in the last hour, of which all runs are kept. */
  handledLastHour: number;
}

const LEASE = 'reaper';
const HOUR_MS = 3_600_000;
const ERROR_CHARS = 1000;

/** Who reaps, and what was reaped. */
export class ReaperRepository {
  constructor(private readonly database: Database) {}

  /**
   * Takes or keeps the reaper's lease for `seconds`: succeeds for its holder, and for anybody once it has run out, by the database's clock. A conditional UPDATE, not GET_LOCK,
   * which a replicated database does not carry over to its next primary.
   */
  async takeLease(holder: string, seconds: number): Promise<boolean> {
    const { affectedRows } = await this.database.write(
      `UPDATE reaper_lease
       SET holder = ?, expires_at = ${NOW_MS} + ?
       WHERE name = ?
         AND (holder = ? OR expires_at <= ${NOW_MS})`,
      [holder, seconds * 1000, LEASE, holder],
    );
    return affectedRows === 1;
  }

  /** Gives the lease up, so that the next reaper need not wait for it to run out. */
  async dropLease(holder: string): Promise<void> {
    await this.database.write('UPDATE reaper_lease SET expires_at = 0 WHERE name = ? AND holder = ?', [LEASE, holder]);
  }

  /** Who holds the lease, until when (ms since 1970, the database's clock); null when nobody does. */
  async leader(): Promise<{ holder: string; expiresAt: number } | null> {
    const [row] = await this.database.read<Pick<ReaperLeaseEntity, 'holder' | 'expiresAt'>>(
      `SELECT holder, expires_at AS expiresAt FROM reaper_lease WHERE name = ? AND expires_at > ${NOW_MS}`,
      [LEASE],
    );
    return row === undefined || row.holder === null ? null : { holder: row.holder, expiresAt: row.expiresAt };
  }

  async record({ duty, reaper, startedAt, durationMs, count, error }: ReaperRun): Promise<void> {
    await this.database.write(
      'INSERT INTO reaper_run (duty, reaper, started_at, duration_ms, count, error) VALUES (?)',
      [[duty, reaper, startedAt, durationMs, count, error?.slice(0, ERROR_CHARS) ?? null]],
    );
  }

  /** The last runs of a duty, newest first. */
  async lastRuns(duty: string, limit: number): Promise<ReaperRun[]> {
    return this.database.read<ReaperRun>(
      `SELECT duty, reaper, started_at AS startedAt, duration_ms AS durationMs, count, error
       FROM reaper_run
       WHERE duty = ?
       ORDER BY id DESC
       LIMIT ?`,
      [duty, limit],
    );
  }

  /** Names of the duties that ever ran. */
  async duties(): Promise<string[]> {
    const rows = await this.database.read<{ duty: string }>('SELECT DISTINCT duty FROM reaper_run ORDER BY duty');
    return rows.map(({ duty }) => duty);
  }

  /** How each duty that ever ran has fared: looks at every run that is kept, some thousands. Ages mix two clocks, the database's and that of the reaper that ran. */
  async dutyStates(): Promise<DutyState[]> {
    const rows = await this.database.read<{ duty: string; succeededAt: number; handled: string; now: number }>(
      `SELECT duty,
              COALESCE(MAX(IF(error IS NULL, started_at + duration_ms, NULL)), MIN(started_at)) AS succeededAt,
              SUM(IF(started_at > ${NOW_MS} - ${HOUR_MS}, count, 0)) AS handled,
              ${NOW_MS} AS now
       FROM reaper_run
       GROUP BY duty
       ORDER BY duty`,
    );
    return rows.map(({ duty, succeededAt, handled, now: at }) => ({
      duty,
      lastSuccessAgeMs: Math.max(0, at - succeededAt),
      handledLastHour: Number(handled),
    }));
  }

  /** Forgets all but the last `keep` runs of a duty, `rows` at a time; returns how many it forgot. */
  async pruneRuns(duty: string, keep: number, rows: number): Promise<number> {
    const [oldestKept] = await this.database.read<{ id: number }>(
      'SELECT id FROM reaper_run WHERE duty = ? ORDER BY id DESC LIMIT ?, 1',
      [duty, keep - 1],
    );
    if (oldestKept === undefined) return 0;
    const { affectedRows } = await this.database.write(
      'DELETE FROM reaper_run WHERE duty = ? AND id < ? ORDER BY id LIMIT ?',
      [duty, oldestKept.id, rows],
    );
    return affectedRows;
  }
}
