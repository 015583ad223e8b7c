import {
  type BeforeApplicationShutdown,
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import { StrainRepository } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { Metrics } from './metrics.js';
import { levelFrom, Pressure } from './pressure.js';

const LOOK_MS = 3000;
/** A level ends after this long if the next looks fail. */
const VALID_MS = 3 * LOOK_MS;
/** Many sessions may wait for a lock for a moment. */
const LOOKS = 2;

/**
 * Looks every few seconds at how long the server's history list is and how many sessions wait for
 * locks, and tells {@link Pressure}. Others than RowMQ cause both, too, so the thresholds are far
 * from what is usual. An idle broker does not look.
 *
 * A long history list slows dequeues down by nothing that was measured (decision 7), and to settle
 * messages is what makes the server's work less. So it never refuses dequeues.
 */
@Injectable()
export class DatabaseStrain implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private readonly logger = new Logger(DatabaseStrain.name);
  private readonly historyThresholds: readonly number[];
  private readonly lockThresholds: readonly number[];
  private timer: NodeJS.Timeout | undefined;
  private seenBatches = 0;
  private history: { length: number | null; level: number } = { length: null, level: 0 };
  private locks: { waits: number[]; level: number } = { waits: [], level: 0 };
  private isBlind = false;

  constructor(
    private readonly repository: StrainRepository,
    private readonly pressure: Pressure,
    metrics: Metrics,
    @Inject(BROKER_CONFIG)
    { slowHistoryLength, slowLockWaits }: Pick<BrokerConfig, 'slowHistoryLength' | 'slowLockWaits'>,
  ) {
    this.historyThresholds = [0, slowHistoryLength, 10 * slowHistoryLength];
    this.lockThresholds = [0, slowLockWaits, 4 * slowLockWaits, 10 * slowLockWaits];
    metrics.gauge(
      'rowmq_database_history_length',
      'Transactions whose old row versions the server has not purged; -1: the broker cannot see it, or has not looked',
      () => this.history.length ?? -1,
      'max',
    );
    metrics.gauge(
      'rowmq_database_lock_waits',
      'Sessions of the server that wait for the lock of a row; -1: the broker has not looked',
      () => this.locks.waits.at(-1) ?? -1,
      'max',
    );
  }

  onApplicationBootstrap(): void {
    this.timer = setTimeout(() => void this.look(), LOOK_MS).unref();
  }

  beforeApplicationShutdown(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  /** Never rejects. */
  private async look(): Promise<void> {
    const { batches } = this.pressure;
    const level = Math.max(this.history.level, this.locks.level);
    if (batches !== this.seenBatches || level > 0) {
      this.seenBatches = batches;
      // The database's health is logged where it is observed.
      await this.read().catch(() => undefined);
    }
    if (this.timer !== undefined) this.timer = setTimeout(() => void this.look(), LOOK_MS).unref();
  }

  private async read(): Promise<void> {
    const { historyLength, lockWaits } = await this.repository.read();
    const history = levelFrom(historyLength ?? 0, this.historyThresholds, this.history.level);
    this.history = { length: historyLength, level: history };
    const waits = [...this.locks.waits, lockWaits ?? 0].slice(-LOOKS);
    const lasting = waits.length < LOOKS ? 0 : Math.min(...waits);
    this.locks = { waits, level: levelFrom(lasting, this.lockThresholds, this.locks.level) };
    this.pressure.add(Math.max(history, this.locks.level), performance.now() + VALID_MS);
    this.tellBlindness();
  }

  private tellBlindness(): void {
    if (this.isBlind || this.repository.whyBlind === undefined) return;
    this.isBlind = true;
    this.logger.log(
      `The reaper yields to a long history list only if the broker can see it, and MySQL shows it to users with the privilege PROCESS: ${this.repository.whyBlind}. Grant it, or leave it: batch times still tell.`,
    );
  }
}
