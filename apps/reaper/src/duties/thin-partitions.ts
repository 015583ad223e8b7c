import { Inject, Injectable } from '@nestjs/common';
import { lowestMessageId } from '@rowmq/contract';
import { type Partition, PartitionRepository } from '@rowmq/store';
import { Batches } from '../batches.js';
import { REAPER_CONFIG, type ReaperConfig } from '../reaper.config.js';
import type { Duty, Round } from './duty.js';

/** A run ends after this long; the next goes on where it stopped. */
const RUN_MS = 5000;
/**
 * A partition is thinned when at most this share of its rows is owed: walking it would free little
 * otherwise …
 */
const OWED_SHARE = 0.5;
/**
 * … or when so little is owed that it can be rebuilt; the server's estimate of its rows may be much
 * too low, for as long as nothing is written.
 */
const FEW_ROWS = 10_000;

/**
 * Deletes the settled messages out of partitions past retention that something long-lived keeps
 * alive (a dead-lettered message, a week's delay), then rebuilds the partition to give its space
 * back.
 */
@Injectable()
export class ThinPartitions implements Duty {
  readonly name = 'thin-partitions';
  readonly everySeconds = 60;
  private readonly batches = new Batches();
  /**
   * How much was owed from a partition when it was thinned: it is not worth thinning again before
   * half of that is settled.
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
      // Again after a failure: others may use the table for longer than DDL waits.
      const whole = this.position?.partition !== partition.name;
      if (whole && this.toRebuild.has(partition.name)) {
        await this.partitions.rebuild(partition);
        this.toRebuild.delete(partition.name);
      }
    }
    return count;
  }

  /** How much is owed from it, if little enough to make thinning worth while. */
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
