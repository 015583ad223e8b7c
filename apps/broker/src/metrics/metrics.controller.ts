import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { Controller, Get, Header, Headers, Res } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { CallNeeds } from '../http/needs.js';
import { DatabaseMetrics } from './database-metrics.js';

const compress = promisify(gzip);
const TAKES_GZIP = /\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))/;

/** Prometheus scrapes here. */
@ApiTags('operations')
@Controller('metrics')
export class MetricsController {
  constructor(private readonly metrics: DatabaseMetrics) {}

  @Get()
  @CallNeeds({ scope: 'metrics', isOperation: true })
  @Header('content-type', 'text/plain; version=0.0.4; charset=utf-8')
  @Header('vary', 'accept-encoding')
  @ApiOperation({ operationId: 'getMetrics', summary: 'Metrics in the Prometheus text format' })
  @ApiOkResponse({
    content: {
      'text/plain': { schema: { type: 'string', example: 'rowmq_messages_total{event="acked",queue="orders"} 17' } },
    },
  })
  async scrape(
    @Headers('accept-encoding') accepted: string | undefined,
    @Res({ passthrough: true }) response: { header(name: string, value: string): unknown },
  ): Promise<string | Buffer> {
    const text = await this.metrics.scrape();
    if (!TAKES_GZIP.test(accepted ?? '')) return text;
    response.header('content-encoding', 'gzip');
    return compress(text);
  }
}
