import { Inject, Injectable, Logger } from '@nestjs/common';
import { PartitionRepository } from '@rowmq/store';
import { REAPER_CONFIG, type ReaperConfig } from '../reaper.config.js';
import type { Duty } from './duty.js';

/**
 * Drops partitions past retention in which every message is settled. It drops a few at a time,
 * because writers wait for each drop.
 */
@Injectable()
export class DropPartitions implements Duty {
  readonly name = 'drop-partitions';
  /**
   * A drop blocks writers for 50 to 100 ms. Every 30 s, that is far below the 1 % that the p99
   * would show.
   */
  readonly everySeconds = 30;
  private readonly logger = new Logger(DropPartitions.name);

  constructor(
    private readonly partitions: PartitionRepository,
    @Inject(REAPER_CONFIG) private readonly config: ReaperConfig,
  ) {}

  async run(): Promise<number> {
    const dropped = await this.partitions.dropSettled({
      retentionSeconds: this.config.retentionSeconds,
      locks: 1,
    });
    if (dropped.length > 0) this.logger.log(`dropped ${dropped.join(', ')}`);
    return dropped.length;
  }
}
