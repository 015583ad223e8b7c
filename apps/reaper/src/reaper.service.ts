import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type BeforeApplicationShutdown,
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import { SchedulerRegistry } from '@nestjs/schedule';
import { ReaperRepository } from '@rowmq/store';
import type { Duty, Round } from './duties/duty.js';
import { REAPER_CONFIG, type ReaperConfig } from './reaper.config.js';

/** Injection token of the duties, in the order of a round. */
export const DUTIES = Symbol('DUTIES');

/**
 * When a reaper dies, another one follows after this time and its own interval. The lease is
 * renewed before each duty, and by the heartbeat during long duties and long pauses.
 */
const LEASE_SECONDS = 30;
const HEARTBEAT_MS = 10_000;
const FIRST_ROUND_MS = 5000;
/** The longest back-off of a duty that keeps failing. */
const LONGEST_BACK_OFF_SECONDS = 600;
/** A duty yields for this long at most. Otherwise no space would come back. */
const LONGEST_YIELD_MS = 600_000;

/**
 * Runs the duties in rounds while it holds the reaper's lease, and stands by while another holds
 * it. A duty that fails, for example because its table is busy, backs off and does not block the
 * others.
 */
@Injectable()
export class ReaperService implements OnApplicationBootstrap, BeforeApplicationShutdown {
  /** Names this reaper in the lease and in the run log. */
  readonly id = `${hostname()}:${process.pid}:${randomBytes(3).toString('hex')}`.slice(0, 120);
  private readonly logger = new Logger(ReaperService.name);
  private readonly stop = new AbortController();
  private readonly dueAt = new Map<Duty, number>();
  private readonly failures = new Map<Duty, number>();
  /** Since when each duty yields. */
  private readonly yieldsSince = new Map<Duty, number>();
  private round: Promise<void> | undefined;
  private beating: Promise<void> | undefined;
  /** Whether this reaper held the lease at its last attempt. */
  private leads = false;
  /** Ends the current round when the lease is lost. */
  private lost = new AbortController();

  constructor(
    private readonly reaper: ReaperRepository,
    private readonly scheduler: SchedulerRegistry,
    @Inject(DUTIES) private readonly duties: readonly Duty[],
    @Inject(REAPER_CONFIG) private readonly config: Pick<ReaperConfig, 'intervalSeconds'>,
  ) {}

  /**
   * Starts the rounds. Writers of a new database wait for the partitions of the first round. So the
   * process is ready only after it, unless it takes long.
   */
  async onApplicationBootstrap(): Promise<void> {
    this.scheduler.addInterval(
      'reaper-round',
      setInterval(() => this.startRound(), this.config.intervalSeconds * 1000),
    );
    this.scheduler.addInterval(
      'reaper-heartbeat',
      setInterval(() => {
        this.beating = this.beat();
      }, HEARTBEAT_MS),
    );
    this.startRound();
    await Promise.race([this.round, sleep(FIRST_ROUND_MS, undefined, { ref: false })]);
  }

  /** Ends the round after the current batch, and hands the lease on. */
  async beforeApplicationShutdown(): Promise<void> {
    this.scheduler.deleteInterval('reaper-round');
    this.scheduler.deleteInterval('reaper-heartbeat');
    this.stop.abort();
    await this.round;
    await this.beating;
    await this.reaper
      .dropLease(this.id)
      .catch((error: unknown) => this.logger.warn(`could not hand the lease on: ${String(error)}`));
  }

  private startRound(): void {
    if (this.round !== undefined || this.stop.signal.aborted) return;
    this.round = this.runRound()
      .catch((error: unknown) => this.logger.error(`the round ended early: ${String(error)}`))
      .finally(() => {
        this.round = undefined;
      });
  }

  private async runRound(): Promise<void> {
    this.lost = new AbortController();
    const signal = AbortSignal.any([this.stop.signal, this.lost.signal]);
    for (const duty of this.duties) {
      if (signal.aborted) return;
      if ((this.dueAt.get(duty) ?? 0) > performance.now()) continue;
      if (await this.yields(duty)) continue;
      if (!(await this.acquireLease())) return;
      await this.runDuty(duty, { signal });
    }
  }

  /** Whether a duty lets brokers go first: some of them report that the database is slow. */
  private async yields(duty: Duty): Promise<boolean> {
    if (duty.isUrgent === true || (await this.reaper.pressure()) === 0) {
      this.yieldsSince.delete(duty);
      return false;
    }
    const since = this.yieldsSince.get(duty) ?? performance.now();
    this.yieldsSince.set(duty, since);
    if (performance.now() - since < LONGEST_YIELD_MS) return true;
    this.yieldsSince.delete(duty);
    return false;
  }

  private async acquireLease(): Promise<boolean> {
    this.leads = await this.reaper.acquireLease(this.id, LEASE_SECONDS);
    return this.leads;
  }

  /** Never rejects. A reaper that stands by asks for the lease in its rounds only. */
  private async beat(): Promise<void> {
    if (!this.leads) return;
    const kept = await this.acquireLease().catch(() => false);
    if (!kept) this.lost.abort();
  }

  /** Runs one duty and records it. */
  async runDuty(duty: Duty, round: Round): Promise<void> {
    const [startedAt, started] = [Date.now(), performance.now()];
    let count = 0;
    let error: string | null = null;
    try {
      count = await duty.run(round);
      this.failures.delete(duty);
    } catch (thrown) {
      error = thrown instanceof Error ? thrown.message : String(thrown);
      this.failures.set(duty, (this.failures.get(duty) ?? 0) + 1);
      this.logger.warn(`${duty.name} failed and will be tried again later: ${error}`);
    }
    const durationMs = Math.round(performance.now() - started);
    this.dueAt.set(duty, performance.now() + this.pauseSeconds(duty) * 1000);
    if (count > 0) this.logger.log(`${duty.name}: ${count} in ${durationMs} ms`);
    await this.reaper.record({ duty: duty.name, reaper: this.id, startedAt, durationMs, count, error });
  }

  private pauseSeconds(duty: Duty): number {
    const failures = this.failures.get(duty) ?? 0;
    if (failures === 0) return duty.everySeconds;
    return Math.min(duty.everySeconds * 2 ** failures, LONGEST_BACK_OFF_SECONDS) * (0.5 + Math.random() / 2);
  }
}
