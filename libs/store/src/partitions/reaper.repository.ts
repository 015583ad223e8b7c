import { Raw } from 'typeorm';
import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import { PEER_SILENCE_MS } from '../peers/peer.repository.js';
import { BrokerEntity, ReaperLeaseEntity, ReaperRunEntity } from '../entities/index.js';

/** The result of one run of a duty. */
export interface ReaperRun {
  duty: string;
  reaper: string;
  /** ms since 1970, on the reaper's clock. */
  startedAt: number;
  durationMs: number;
  count: number;
  error: string | null;
}

/** A duty's record, from its stored runs. */
export interface DutyState {
  duty: string;
  /**
   * Milliseconds since its last success. If no stored run succeeded, milliseconds since the first
   * began.
   */
  lastSuccessAgeMs: number;
  /** The rows or partitions that it handled in the last hour. All runs of that hour are stored. */
  handledLastHour: number;
}

const LEASE = 'reaper';
const HOUR_MS = 3_600_000;
const ERROR_CHARS = 1000;

/** The reaper's lease and the log of its runs. */
export class ReaperRepository {
  constructor(private readonly database: Database) {}

  /** The highest pressure that a live broker reports. */
  async pressure(): Promise<number> {
    const [row] = await this.database.manager
      .createQueryBuilder(BrokerEntity, 'broker')
      .select('COALESCE(MAX(broker.pressure), 0)', 'most')
      .where(`broker.heartbeatAt > ${NOW_MS} - ${PEER_SILENCE_MS}`)
      .getRawMany<{ most: number | string }>();
    return Number(row?.most ?? 0);
  }

  /**
   * Acquires or renews the reaper's lease for `seconds`. It succeeds for the holder, and for any
   * reaper once the lease has expired by the database's clock. It uses a conditional UPDATE,
   * because GET_LOCK does not survive a failover to a replica.
   */
  async acquireLease(holder: string, seconds: number): Promise<boolean> {
    const { affected } = await this.database.manager.update(
      ReaperLeaseEntity,
      [
        { name: LEASE, holder },
        { name: LEASE, expiresAt: Raw((column) => `${column} <= ${NOW_MS}`) },
      ],
      { holder, expiresAt: () => `${NOW_MS} + ${Math.round(seconds * 1000)}` },
    );
    return affected === 1;
  }

  /** Releases the lease, so that the next reaper need not wait for its end. */
  async dropLease(holder: string): Promise<void> {
    await this.database.manager.update(ReaperLeaseEntity, { name: LEASE, holder }, { expiresAt: 0 });
  }

  /**
   * The lease's holder and its end in ms since 1970, on the database's clock. Null when no reaper
   * holds it.
   */
  async leader(): Promise<{ holder: string; expiresAt: number } | null> {
    const lease = await this.database.manager.findOneBy(ReaperLeaseEntity, {
      name: LEASE,
      expiresAt: Raw((column) => `${column} > ${NOW_MS}`),
    });
    return lease === null || lease.holder === null ? null : { holder: lease.holder, expiresAt: lease.expiresAt };
  }

  async record(run: ReaperRun): Promise<void> {
    const error = run.error?.slice(0, ERROR_CHARS) ?? null;
    await this.database.manager.insert(ReaperRunEntity, { ...run, error });
  }

  /** The last runs of a duty, newest first. */
  async lastRuns(duty: string, limit: number): Promise<ReaperRun[]> {
    const runs = await this.database.manager.find(ReaperRunEntity, {
      where: { duty },
      order: { id: 'DESC' },
      take: limit,
    });
    return runs.map(({ id: _, ...run }) => run);
  }

  /** Names of all duties that have run. */
  async duties(): Promise<string[]> {
    const rows = await this.database.manager
      .createQueryBuilder(ReaperRunEntity, 'run')
      .select('run.duty', 'duty')
      .distinct()
      .orderBy('run.duty')
      .getRawMany<{ duty: string }>();
    return rows.map(({ duty }) => duty);
  }

  /**
   * The record of every duty that has run. It reads all stored runs, some thousands. Ages mix two
   * clocks: the database's and that of the reaper that ran.
   */
  async dutyStates(): Promise<DutyState[]> {
    const lastSuccess = 'MAX(IF(run.error IS NULL, run.startedAt + run.durationMs, NULL))';
    const rows = await this.database.manager
      .createQueryBuilder(ReaperRunEntity, 'run')
      .select('run.duty', 'duty')
      .addSelect(`COALESCE(${lastSuccess}, MIN(run.startedAt))`, 'succeededAt')
      .addSelect(`SUM(IF(run.startedAt > ${NOW_MS} - ${HOUR_MS}, run.count, 0))`, 'handled')
      .addSelect(NOW_MS, 'now')
      .groupBy('run.duty')
      .orderBy('run.duty')
      .getRawMany<{ duty: string; succeededAt: number; handled: string; now: number }>();
    return rows.map(({ duty, succeededAt, handled, now: at }) => ({
      duty,
      lastSuccessAgeMs: Math.max(0, at - succeededAt),
      handledLastHour: Number(handled),
    }));
  }

  /** Deletes all but the last `keep` runs of a duty, at most `rows` of them. Returns how many. */
  async pruneRuns(duty: string, keep: number, rows: number): Promise<number> {
    const [oldestKept] = await this.database.manager.find(ReaperRunEntity, {
      select: { id: true },
      where: { duty },
      order: { id: 'DESC' },
      skip: keep - 1,
      take: 1,
    });
    if (oldestKept === undefined) return 0;
    // TypeORM's DELETE has no LIMIT.
    const { affectedRows } = await this.database.write(
      'DELETE FROM reaper_run WHERE duty = ? AND id < ? ORDER BY id LIMIT ?',
      [duty, oldestKept.id, rows],
    );
    return affectedRows;
  }
}
