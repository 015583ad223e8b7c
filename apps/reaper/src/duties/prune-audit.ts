import { Inject, Injectable } from '@nestjs/common';
import { AuditRepository } from '@rowmq/store';
import { Batches } from '../batches.js';
import { REAPER_CONFIG, type ReaperConfig } from '../reaper.config.js';
import type { Duty, Round } from './duty.js';

/** A run ends after this long. The next one goes on. */
const RUN_MS = 5000;

/** Deletes old actions of administrators. */
@Injectable()
export class PruneAudit implements Duty {
  readonly name = 'prune-audit';
  readonly everySeconds = 600;
  private readonly batches = new Batches();

  constructor(
    private readonly audit: AuditRepository,
    @Inject(REAPER_CONFIG) private readonly config: Pick<ReaperConfig, 'auditDays'>,
  ) {}

  async run({ signal }: Round): Promise<number> {
    const until = performance.now() + RUN_MS;
    return this.batches.runAll(signal, (rows) => this.audit.prune(this.config.auditDays, rows), { until });
  }
}
