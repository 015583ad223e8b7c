import { Controller, Get, Headers, Inject, Res } from '@nestjs/common';
import { ApiFoundResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { LIMITS, rootAnswer, type RootAnswer } from '@rowmq/contract';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { CallNeeds } from './needs.js';
import { refTo } from './schema-names.js';
import { VERSION } from './version.js';

/** Paths by what they show. */
const LINKS = {
  dashboard: '/dashboard',
  docs: '/docs',
  openapi: '/openapi.json',
  queues: '/v1/admin/queues',
  ready: '/health/ready',
  live: '/health/live',
  metrics: '/metrics',
};
/** Greets those who open the broker's address: people with the dashboard, programs with JSON. */
@ApiTags('operations')
@Controller()
export class RootController {
  constructor(@Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'sizes'>) {}

  @Get()
  @CallNeeds({ scope: 'none' })
  @ApiOperation({
    operationId: 'root',
    summary: 'The version of the broker, links, and its limits of size. A browser is sent to the dashboard',
  })
  @ApiOkResponse({
    description: 'Done',
    content: { 'application/json': { schema: refTo(rootAnswer) } },
  })
  @ApiFoundResponse({ description: 'The dashboard, for a browser' })
  root(
    @Headers('accept') accept: string | undefined,
    @Res({ passthrough: true })
    response: { status(code: number): unknown; header(name: string, value: string): unknown },
  ): RootAnswer | undefined {
    response.header('vary', 'accept');
    if (!prefersHtml(accept)) {
      const { headersBytes, answerBytes } = LIMITS;
      const limits = { ...this.config.sizes, headersBytes, answerBytes };
      return { name: 'RowMQ', version: VERSION, links: LINKS, limits };
    }
    // It is relative, because a balancer may serve the broker below a path.
    response.status(302);
    response.header('location', 'dashboard');
    return undefined;
  }
}

/** Browsers name HTML. Programs name JSON, anything, or nothing. */
function prefersHtml(accept = ''): boolean {
  const html = accept.indexOf('text/html');
  const json = accept.indexOf('application/json');
  return html >= 0 && (json < 0 || html < json);
}
