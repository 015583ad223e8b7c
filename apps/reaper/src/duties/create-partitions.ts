import { Inject, Injectable } from '@nestjs/common';
import { PartitionRepository } from '@rowmq/store';
import { REAPER_CONFIG, type ReaperConfig } from '../reaper.config.js';
import type { Duty } from './duty.js';

/**
 * Makes partitions of the message table ahead of their time, so that each can be dropped as a whole
 * after it.
 */
@Injectable()
export class CreatePartitions implements Duty {
  readonly name = 'create-partitions';
  readonly everySeconds = 60;

  constructor(
    private readonly partitions: PartitionRepository,
    @Inject(REAPER_CONFIG) private readonly config: ReaperConfig,
  ) {}

  async run(): Promise<number> {
    const { partitionMinutes: widthMinutes, partitionsAheadMinutes: aheadMinutes } = this.config;
    return this.partitions.createAhead({ widthMinutes, aheadMinutes });
  }
}
