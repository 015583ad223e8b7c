import { Controller, Get } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { HealthCheck, type HealthCheckResult, HealthCheckService, HealthIndicatorService } from '@nestjs/terminus';
import { Database } from '@rowmq/store';
import { ApiProblems } from '../http/api-call.js';

const PING_MS = 2000;
/** OpenAPI schema of the checks, by name. */
const PARTS = {
  type: 'object',
  additionalProperties: {
    type: 'object',
    properties: { status: { type: 'string', enum: ['up', 'down'] } },
    additionalProperties: true,
  },
};

/** For load balancers and orchestrators. */
@ApiTags('operations')
@Controller('health')
export class HealthController {
  constructor(
    private readonly health: HealthCheckService,
    private readonly indicators: HealthIndicatorService,
    private readonly database: Database,
  ) {}

  @Get('live')
  @ApiOperation({ summary: 'Whether the process runs. Restart it when this fails' })
  @ApiOkResponse({
    description: 'Done',
    schema: { type: 'object', properties: { status: { type: 'string', enum: ['ok'] } }, required: ['status'] },
  })
  live(): { status: 'ok' } {
    return { status: 'ok' };
  }

  @Get('ready')
  @HealthCheck({ swaggerDocumentation: false })
  @ApiOperation({
    summary:
      'Whether the broker reaches its database, and the database accepts writes. Send requests while this succeeds',
  })
  @ApiOkResponse({
    description: 'Done',
    schema: {
      type: 'object',
      properties: { status: { type: 'string', enum: ['ok'] }, info: PARTS, error: PARTS, details: PARTS },
    },
  })
  @ApiProblems(['database-unavailable'])
  async ready(): Promise<HealthCheckResult> {
    return this.health.check([() => this.indicators.check('database').attempt(() => this.database.ping(PING_MS))]);
  }
}
