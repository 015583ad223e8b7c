import { Injectable } from '@nestjs/common';
import { ReaperRepository } from '@rowmq/store';
import { Batches } from '../batches.js';
import type { Duty, Round } from './duty.js';

const RUNS_KEPT = 1000;

/** Deletes all but the last thousand runs of each duty. */
@Injectable()
export class PruneRuns implements Duty {
  readonly name = 'prune-runs';
  readonly everySeconds = 600;
  private readonly batches = new Batches();

  constructor(private readonly reaper: ReaperRepository) {}

  async run({ signal }: Round): Promise<number> {
    let count = 0;
    for (const duty of await this.reaper.duties()) {
      count += await this.batches.runAll(signal, (rows) => this.reaper.pruneRuns(duty, RUNS_KEPT, rows));
    }
    return count;
  }
}
