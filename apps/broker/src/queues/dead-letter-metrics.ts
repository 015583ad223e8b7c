import { Inject, Injectable } from '@nestjs/common';
import { BrowseRepository, QueueRepository } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { DatabaseMetrics } from '../metrics/database-metrics.js';
import { OTHERS } from '../metrics/shown-queues.js';

/** Deliveries of one dead-letter queue that one look counts, the oldest first. */
const ROWS = 10_000;
/** A look rests for this many times as long as it took, and the scrapes meanwhile show it again. */
const REST_FACTOR = 10;
/** The label of a queue that was deleted. No queue can have this name. */
const DELETED = '(deleted)';

interface Sample {
  queue: string;
  source: string;
  messages: number;
}

/** The gauge of dead letters by the queue that they left first. */
@Injectable()
export class DeadLetterMetrics {
  private last: Sample[] = [];
  private restsUntil = 0;

  constructor(
    shared: DatabaseMetrics,
    private readonly queues: QueueRepository,
    private readonly browse: BrowseRepository,
    @Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'metricsQueues'>,
  ) {
    const letters = shared.gauge(
      'rowmq_dead_letters',
      `Messages in a dead-letter queue by the queue that they left first, among its oldest ${ROWS} deliveries`,
      ['queue', 'source'],
    );
    shared.register(async () => {
      const samples = await this.sample();
      return () => {
        for (const { queue, source, messages } of samples) letters.inc({ queue, source }, messages);
      };
    });
  }

  private async sample(): Promise<Sample[]> {
    const began = performance.now();
    if (began < this.restsUntil) return this.last;
    const all = await this.queues.list();
    const names = new Map(all.map(({ id, name }) => [id, name]));
    const targets = new Set(all.map(({ deadLetterQueueId }) => deadLetterQueueId));
    const samples: Sample[] = [];
    for (const { id, name } of all.filter((one) => targets.has(one.id))) {
      for (const { sourceQueueId, messages } of await this.browse.countBySource(id, ROWS))
        samples.push({ queue: name, source: names.get(sourceQueueId) ?? DELETED, messages });
    }
    this.last = bounded(samples, this.config.metricsQueues);
    const now = performance.now();
    this.restsUntil = now + (now - began) * REST_FACTOR;
    return this.last;
  }
}

/** The largest samples, and the sum of the others, so that sums stay right. */
export function bounded(samples: Sample[], most: number): Sample[] {
  if (samples.length <= most) return samples;
  const ranked = samples.toSorted((one, other) => other.messages - one.messages);
  const messages = ranked.slice(most).reduce((sum, one) => sum + one.messages, 0);
  return [...ranked.slice(0, most), { queue: OTHERS, source: OTHERS, messages }];
}
