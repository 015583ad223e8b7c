import { Inject, Injectable } from '@nestjs/common';
import { lowestMessageId } from '@rowmq/contract';
import { type Partition, PartitionRepository } from '@rowmq/store';
import { Batches } from '../batches.js';
import { REAPER_CONFIG, type ReaperConfig } from '../reaper.config.js';
import type { Duty, Round } from './duty.js';

/** A run ends after this long. The next one continues at the same position. */
const RUN_MS = 5000;
/**
 * A partition is thinned if at most this share of its rows is owed. Otherwise a walk would free
 * little.
 */
const OWED_SHARE = 0.5;
/**
 * A partition with at most this many owed rows is thinned in any case, because a rebuild is cheap.
 * The server's estimate of its rows may be much too low as long as nothing is written.
 */
const FEW_ROWS = 10_000;

/**
 * Deletes the settled messages of partitions past retention that cannot be dropped, because they
 * still have owed messages, such as dead letters. It then rebuilds the partition to free the space.
 */
@Injectable()
export class ThinPartitions implements Duty {
  readonly name = 'thin-partitions';
  readonly everySeconds = 60;
  private readonly batches = new Batches();
  /**
   * The owed rows of each partition when it was thinned. Another pass pays off when half are
   * settled.
   */
  private readonly thinned = new Map<string, number>();
  private readonly toRebuild = new Set<string>();
  private position: { partition: string; after: Buffer } | undefined;

  constructor(
    private readonly partitions: PartitionRepository,
    @Inject(REAPER_CONFIG) private readonly config: ReaperConfig,
  ) {}

  async run({ signal }: Round): Promise<number> {
    const until = performance.now() + RUN_MS;
    const kept = await this.partitions.listKept({ retentionSeconds: this.config.retentionSeconds });
    this.forgetOthers(kept);
    let count = 0;
    for (const partition of kept) {
      if (signal.aborted || performance.now() > until) break;
      const owed = await this.worthThinning(partition);
      if (owed !== undefined) count += await this.thin(partition, owed, signal, until);
      // The next run tries again after a failure: others may use the table for longer than DDL
      // waits.
      const whole = this.position?.partition !== partition.name;
      if (whole && this.toRebuild.has(partition.name)) {
        await this.partitions.rebuild(partition);
        this.toRebuild.delete(partition.name);
      }
    }
    if (!signal.aborted) await this.merge();
    return count;
  }

  /** A merged partition has the name of its last part, and is worth another look. */
  private async merge(): Promise<void> {
    const merged = await this.partitions.mergeKept({ retentionSeconds: this.config.retentionSeconds });
    for (const name of merged) this.thinned.delete(name);
  }

  /** The partition's owed rows, or undefined if thinning would not pay off. */
  private async worthThinning(partition: Partition): Promise<number | undefined> {
    const before = this.thinned.get(partition.name);
    const limit = Math.max(Math.ceil(partition.rows * OWED_SHARE), FEW_ROWS);
    const owed = await this.partitions.countOwed(partition, limit + 1);
    return owed <= limit && (before === undefined || owed <= before / 2) ? owed : undefined;
  }

  private async thin(partition: Partition, owed: number, signal: AbortSignal, until: number): Promise<number> {
    const resumed = this.position?.partition === partition.name ? this.position.after : undefined;
    let after: Buffer | null = resumed ?? lowestMessageId(partition.from ?? 0);
    let deleted = 0;
    while (after !== null) {
      if (signal.aborted || performance.now() > until) {
        this.position = { partition: partition.name, after };
        return deleted;
      }
      const from: Buffer = after;
      const step: { deleted: number; next: Buffer | null } = await this.batches.run(signal, (rows) =>
        this.partitions.thin(partition, from, rows),
      );
      deleted += step.deleted;
      if (step.deleted > 0) this.toRebuild.add(partition.name);
      after = step.next;
    }
    this.position = undefined;
    this.thinned.set(partition.name, owed);
    return deleted;
  }

  private forgetOthers(kept: readonly Partition[]): void {
    const names = new Set(kept.map(({ name }) => name));
    for (const name of this.thinned.keys()) if (!names.has(name)) this.thinned.delete(name);
    for (const name of this.toRebuild) if (!names.has(name)) this.toRebuild.delete(name);
  }
}
