import { Controller, Get, Header } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { QueueStatsService } from '../admin/queue-stats.service.js';
import { CombinedDemand } from '../messages/combined-demand.js';
import { Metrics } from './metrics.js';

/** Prometheus scrapes here. */
@ApiTags('operations')
@Controller('metrics')
export class MetricsController {
  constructor(
    private readonly metrics: Metrics,
    private readonly stats: QueueStatsService,
    demand: CombinedDemand,
  ) {
    metrics.gauge('rowmq_waiting_consumers', 'Consumers that wait for messages on this broker', () => demand.size);
  }

  @Get()
  @Header('content-type', 'text/plain; version=0.0.4; charset=utf-8')
  @ApiOperation({ summary: 'Metrics in the Prometheus text format' })
  @ApiOkResponse({
    content: {
      'text/plain': { schema: { type: 'string', example: 'rowmq_messages_total{event="acked",queue="orders"} 17' } },
    },
  })
  async scrape(): Promise<string> {
    // Before it is asked which queues there are: one that is created meanwhile is not taken for gone.
    const text = await this.metrics.text();
    // When the database is away, what the process knows by itself is wanted all the more.
    const depths = await this.depths(text).catch(() => '');
    return `${text}\n${depths}`;
  }

  /** Depths come from the database, are the same on every broker, and are as old as their cost allows. */
  private async depths(text: string): Promise<string> {
    const queues = await this.stats.sample();
    this.metrics.forgetAllBut(new Set(queues.map(({ name }) => name)), text);
    const lines = ['# HELP rowmq_queue_deliveries Deliveries by state', '# TYPE rowmq_queue_deliveries gauge'];
    const ages = [
      '# HELP rowmq_queue_oldest_ready_age_seconds How long the oldest ready delivery has been ready',
      '# TYPE rowmq_queue_oldest_ready_age_seconds gauge',
    ];
    for (const { name, stats } of queues) {
      for (const state of ['ready', 'delayed', 'leased'] as const)
        lines.push(`rowmq_queue_deliveries{queue="${name}",state="${state}"} ${stats[state]}`);
      ages.push(`rowmq_queue_oldest_ready_age_seconds{queue="${name}"} ${stats.oldestReadyAgeSeconds ?? 0}`);
    }
    return `${[...lines, ...ages].join('\n')}\n`;
  }
}
