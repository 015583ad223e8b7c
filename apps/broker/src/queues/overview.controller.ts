import { Controller, Get, Query } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import { overviewAnswer, type OverviewAnswer, overviewQuery, type OverviewQuery } from '@rowmq/contract';
import { ApiCall } from '../http/api-call.js';
import { CalledBy, type Caller } from '../http/caller.js';
import { OverviewService } from './overview.service.js';

/** Shows all queues at a glance. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/overview')
export class OverviewController {
  constructor(private readonly overview: OverviewService) {}

  @Get()
  @ApiCall({
    summary: 'What needs attention, and a page of queues with counts, rates and the last hour',
    needs: { scope: 'admin' },
    hasQuery: true,
    status: 200,
    answer: overviewAnswer,
    problems: ['invalid-request'],
  })
  async getOverview(
    @Query({ schema: overviewQuery }) query: OverviewQuery,
    @CalledBy() caller: Caller,
  ): Promise<OverviewAnswer> {
    return this.overview.answer(caller, query);
  }
}
