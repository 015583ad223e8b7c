import { Inject, Injectable } from '@nestjs/common';
import { PartitionRepository } from '@rowmq/store';
import { REAPER_CONFIG, type ReaperConfig } from '../reaper.config.js';
import type { Duty } from './duty.js';

/**
 * Creates partitions of the message table in advance, so that each can later be dropped as a whole.
 */
@Injectable()
export class CreatePartitions implements Duty {
  readonly isUrgent = true;
  readonly name = 'create-partitions';
  readonly everySeconds = 60;

  constructor(
    private readonly partitions: PartitionRepository,
    @Inject(REAPER_CONFIG) private readonly config: ReaperConfig,
  ) {}

  async run(): Promise<number> {
    const { partitionMinutes: widthMinutes, partitionsAheadMinutes: advanceMinutes } = this.config;
    return this.partitions.createMissing({ widthMinutes, advanceMinutes });
  }
}
