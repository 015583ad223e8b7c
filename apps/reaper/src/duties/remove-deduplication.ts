import { Injectable } from '@nestjs/common';
import { DeduplicationRepository } from '@rowmq/store';
import { Batches } from '../batches.js';
import type { Duty, Round } from './duty.js';

/** A run ends after this long. The next one goes on. */
const RUN_MS = 5000;

/**
 * Removes expired records of deduplicationIds and Idempotency-Keys. No enqueue heeds them; this
 * frees their space.
 */
@Injectable()
export class RemoveDeduplication implements Duty {
  readonly name = 'remove-deduplication';
  readonly everySeconds = 10;
  private readonly batches = new Batches();

  constructor(private readonly records: DeduplicationRepository) {}

  async run({ signal }: Round): Promise<number> {
    const until = performance.now() + RUN_MS;
    return this.batches.runAll(signal, (rows) => this.records.removeExpired(rows), { until });
  }
}
