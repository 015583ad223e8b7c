import { Injectable } from '@nestjs/common';
import { ReaperRepository } from '@rowmq/store';
import { DatabaseMetrics } from './database-metrics.js';

/** Gauges of the reaper's work. */
@Injectable()
export class ReaperMetrics {
  constructor(shared: DatabaseMetrics, reaper: ReaperRepository) {
    const leads = shared.gauge('rowmq_reaper_leader', 'Whether a reaper holds the lease to work', []);
    const succeeded = shared.gauge(
      'rowmq_reaper_last_success_age_seconds',
      'How long ago a duty of the reaper last succeeded',
      ['duty'],
    );
    const handled = shared.gauge(
      'rowmq_reaper_handled_last_hour',
      'Rows or partitions that a duty of the reaper handled in the last hour',
      ['duty'],
    );
    shared.register(async () => {
      const leader = await reaper.leader();
      const duties = await reaper.dutyStates();
      return () => {
        leads.set(Number(leader !== null));
        for (const { duty, lastSuccessAgeMs, handledLastHour } of duties) {
          succeeded.set({ duty }, lastSuccessAgeMs / 1000);
          handled.set({ duty }, handledLastHour);
        }
      };
    });
  }
}
