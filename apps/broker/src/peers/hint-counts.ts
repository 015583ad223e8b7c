import { Injectable } from '@nestjs/common';
import { Metrics } from '../metrics/metrics.js';

type HintEvent = 'sent' | 'failed' | 'received' | 'refused';

/** Counts the hints of this process, by what became of them. */
@Injectable()
export class HintCounts {
  private readonly counts = new Map<HintEvent, number>([
    ['sent', 0],
    ['failed', 0],
    ['received', 0],
    ['refused', 0],
  ]);

  constructor(metrics: Metrics) {
    metrics.counter('rowmq_hints_total', 'Hints between brokers, by event', 'event', () => this.counts);
  }

  count(event: HintEvent): void {
    this.counts.set(event, (this.counts.get(event) ?? 0) + 1);
  }
}
