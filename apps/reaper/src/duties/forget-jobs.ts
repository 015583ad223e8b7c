import { Inject, Injectable } from '@nestjs/common';
import { JobRepository } from '@rowmq/store';
import { Batches } from '../batches.js';
import { REAPER_CONFIG, type ReaperConfig } from '../reaper.config.js';
import type { Duty, Round } from './duty.js';

/** A run ends after this long. The next one goes on. */
const RUN_MS = 5000;

/** Deletes the records of jobs that ended days ago. */
@Injectable()
export class ForgetJobs implements Duty {
  readonly name = 'forget-jobs';
  readonly everySeconds = 600;
  private readonly batches = new Batches();

  constructor(
    private readonly jobs: JobRepository,
    @Inject(REAPER_CONFIG) private readonly config: ReaperConfig,
  ) {}

  async run({ signal }: Round): Promise<number> {
    const until = performance.now() + RUN_MS;
    return this.batches.runAll(signal, (rows) => this.jobs.forget(this.config.jobRetentionSeconds, rows), { until });
  }
}
