import { Controller, Get, Headers, Inject, Res } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { LIMITS, rootAnswer, type RootAnswer } from '@rowmq/contract';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { CallNeeds } from './needs.js';
import { refTo } from './schema-names.js';
import { VERSION } from './version.js';

/** Paths by what they show. */
const LINKS = {
  docs: '/docs',
  openapi: '/openapi.json',
  queues: '/v1/admin/queues',
  ready: '/health/ready',
  live: '/health/live',
  metrics: '/metrics',
};
const WORDS: Record<keyof typeof LINKS, string> = {
  docs: 'The API, to read and to try',
  openapi: 'The API as an OpenAPI document, for generators of clients',
  queues: 'Every queue with its settings and counts (needs the API key, if the broker has one)',
  ready: 'Whether the broker reaches its database',
  live: 'Whether the broker runs',
  metrics: 'Metrics for Prometheus',
};

const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>RowMQ</title>
<style>body { font: 1rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }</style>
<h1>RowMQ ${VERSION}</h1>
<p>A message broker whose only state is a MySQL database.</p>
<ul>
${Object.entries(LINKS)
  .map(([name, path]) => `<li><a href="${path.slice(1)}">${path}</a>: ${WORDS[name as keyof typeof LINKS]}`)
  .join('\n')}
</ul>
`;

/** Greets those who open the broker's address: people with a page, programs with JSON. */
@ApiTags('operations')
@Controller()
export class RootController {
  constructor(@Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'sizes'>) {}

  @Get()
  @CallNeeds({ scope: 'none' })
  @ApiOperation({
    operationId: 'root',
    summary: 'The version of the broker, links, and its limits of size. A browser gets a page',
  })
  @ApiOkResponse({
    description: 'Done',
    content: {
      'application/json': { schema: refTo(rootAnswer) },
      'text/html': { schema: { type: 'string' } },
    },
  })
  root(
    @Headers('accept') accept: string | undefined,
    @Res({ passthrough: true }) response: { header(name: string, value: string): unknown },
  ): RootAnswer | string {
    response.header('vary', 'accept');
    if (!prefersHtml(accept)) {
      const { headersBytes, answerBytes } = LIMITS;
      const limits = { ...this.config.sizes, headersBytes, answerBytes };
      return { name: 'RowMQ', version: VERSION, links: LINKS, limits };
    }
    response.header('content-type', 'text/html; charset=utf-8');
    return PAGE;
  }
}

/** Browsers name HTML. Programs name JSON, anything, or nothing. */
function prefersHtml(accept = ''): boolean {
  const html = accept.indexOf('text/html');
  const json = accept.indexOf('application/json');
  return html >= 0 && (json < 0 || html < json);
}
