import { Controller, Get, Header } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { DatabaseMetrics } from './database-metrics.js';

/** Prometheus scrapes here. */
@ApiTags('operations')
@Controller('metrics')
export class MetricsController {
  constructor(private readonly metrics: DatabaseMetrics) {}

  @Get()
  @Header('content-type', 'text/plain; version=0.0.4; charset=utf-8')
  @ApiOperation({ operationId: 'getMetrics', summary: 'Metrics in the Prometheus text format' })
  @ApiOkResponse({
    content: {
      'text/plain': { schema: { type: 'string', example: 'rowmq_messages_total{event="acked",queue="orders"} 17' } },
    },
  })
  async scrape(): Promise<string> {
    return this.metrics.scrape();
  }
}
