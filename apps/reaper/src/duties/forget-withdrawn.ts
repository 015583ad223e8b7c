import { Injectable } from '@nestjs/common';
import { FIRST_ID, WithdrawnRepository } from '@rowmq/store';
import { Batches } from '../batches.js';
import type { Duty, Round } from './duty.js';

/** A run ends after this long. The next one goes on. */
const RUN_MS = 5000;

/**
 * Forgets which messages were cancelled or purged, once they are no longer stored. Until then a
 * replay leaves them out.
 */
@Injectable()
export class ForgetWithdrawn implements Duty {
  readonly name = 'forget-withdrawn';
  readonly everySeconds = 60;
  private readonly batches = new Batches();
  private after: Buffer = FIRST_ID;

  constructor(private readonly withdrawn: WithdrawnRepository) {}

  async run({ signal }: Round): Promise<number> {
    const until = performance.now() + RUN_MS;
    let count = 0;
    do {
      const { forgotten, next } = await this.batches.run(signal, (rows) =>
        this.withdrawn.forgetReaped(this.after, rows),
      );
      count += forgotten;
      this.after = next ?? FIRST_ID;
    } while (this.after !== FIRST_ID && !signal.aborted && performance.now() < until);
    return count;
  }
}
