import { Controller, Get } from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { HealthCheck, type HealthCheckResult, HealthCheckService, HealthIndicatorService } from '@nestjs/terminus';
import { RowmqError } from '@rowmq/contract';
import { Database } from '@rowmq/store';
import { ApiProblems } from '../http/api-call.js';
import { CallNeeds } from '../http/needs.js';
import type { BrokerAdapter } from '../http/broker-adapter.js';

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
    private readonly host: HttpAdapterHost<BrokerAdapter>,
  ) {}

  @Get('live')
  @CallNeeds({ scope: 'none' })
  @ApiOperation({ operationId: 'getLiveness', summary: 'Whether the process runs. Restart it when this fails' })
  @ApiOkResponse({
    description: 'Done',
    schema: { type: 'object', properties: { status: { type: 'string', enum: ['ok'] } }, required: ['status'] },
  })
  live(): { status: 'ok' } {
    return { status: 'ok' };
  }

  @Get('ready')
  @CallNeeds({ scope: 'none' })
  @HealthCheck({ swaggerDocumentation: false })
  @ApiOperation({
    operationId: 'getReadiness',
    summary:
      'Whether the broker reaches its database, the database accepts writes, and the broker is not about to stop. Send requests while this succeeds',
  })
  @ApiOkResponse({
    description: 'Done',
    schema: {
      type: 'object',
      properties: { status: { type: 'string', enum: ['ok'] }, info: PARTS, error: PARTS, details: PARTS },
    },
  })
  @ApiProblems(['database-unavailable', 'overloaded'])
  async ready(): Promise<HealthCheckResult> {
    if (this.host.httpAdapter.isStopping)
      throw new RowmqError('overloaded', 'The broker is stopping. Send requests to another one.', {
        retryAfterSeconds: 1,
      });
    return this.health.check([() => this.indicators.check('database').attempt(() => this.database.ping(PING_MS))]);
  }
}
