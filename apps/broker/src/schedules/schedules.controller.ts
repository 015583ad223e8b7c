import { isDeepStrictEqual } from 'node:util';
import { Body, Controller, Delete, Get, HttpCode, HttpStatus, Param, Post, Put, Query, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiBody, ApiResponse, ApiTags } from '@nestjs/swagger';
import {
  emptyRequest,
  putScheduleRequest,
  runScheduleAnswer,
  type RunScheduleAnswer,
  scheduleAnswer,
  type ScheduleAnswer,
  type ScheduleDefinition,
  scheduleName,
  schedulesAnswer,
  type SchedulesAnswer,
  schedulesQuery,
  type SchedulesQuery,
} from '@rowmq/contract';
import { ApiCall } from '../http/api-call.js';
import { Audited, type Changes } from '../http/changes.js';
import { CalledBy, type Caller } from '../http/caller.js';
import { SchedulesService } from './schedules.service.js';

/** Schedules: messages that are enqueued or published again and again. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/schedules')
export class SchedulesController {
  constructor(private readonly schedules: SchedulesService) {}

  @Get()
  @ApiCall({
    id: 'listSchedules',
    summary: 'A page of schedules by name, with their next and last runs',
    needs: { scope: 'admin' },
    hasQuery: true,
    status: 200,
    answer: schedulesAnswer,
    problems: ['invalid-request'],
  })
  async listSchedules(
    @Query({ schema: schedulesQuery }) query: SchedulesQuery,
    @CalledBy() caller: Caller,
  ): Promise<SchedulesAnswer> {
    return this.schedules.list(caller, query);
  }

  @Get(':schedule')
  @ApiCall({
    id: 'getSchedule',
    summary: 'One schedule, with its next and last run',
    needs: { scope: 'admin', reach: ['schedule'] },
    status: 200,
    answer: scheduleAnswer,
    problems: ['invalid-request', 'schedule-not-found'],
  })
  async getSchedule(
    @Param('schedule', { schema: scheduleName }) name: string,
    @CalledBy() caller: Caller,
  ): Promise<ScheduleAnswer> {
    return this.schedules.get(caller, name);
  }

  @Put(':schedule')
  @ApiCall({
    id: 'putSchedule',
    summary: 'Create a schedule, or replace its definition',
    needs: { scope: 'admin', reach: ['schedule'] },
    status: 200,
    answer: scheduleAnswer,
    problems: ['invalid-request', 'queue-not-found', 'topic-not-found', 'message-too-large'],
  })
  @ApiResponse({ status: 201, description: 'Created', standardSchema: scheduleAnswer })
  async putSchedule(
    @Param('schedule', { schema: scheduleName }) name: string,
    @Body({ schema: putScheduleRequest }) definition: ScheduleDefinition,
    @Res({ passthrough: true }) response: { status(code: number): unknown },
    @CalledBy() caller: Caller,
    @Audited() changes: Changes,
  ): Promise<ScheduleAnswer> {
    const { created, before, answer } = await this.schedules.put(caller, name, definition);
    changes.report(withoutBody(before), withoutBody(answer));
    if (before !== null && !isDeepStrictEqual(before.message, answer.message)) changes.outcome({ message: 'changed' });
    response.status(created ? HttpStatus.CREATED : HttpStatus.OK);
    return answer;
  }

  @Delete(':schedule')
  @HttpCode(204)
  @ApiCall({
    id: 'deleteSchedule',
    summary: 'Delete a schedule; messages that it enqueued stay',
    needs: { scope: 'admin', reach: ['schedule'] },
    status: 204,
    problems: ['invalid-request', 'schedule-not-found'],
  })
  async deleteSchedule(
    @Param('schedule', { schema: scheduleName }) name: string,
    @CalledBy() caller: Caller,
    @Audited() changes: Changes,
  ): Promise<void> {
    changes.report(withoutBody(await this.schedules.delete(caller, name)), null);
  }

  @Post(':schedule/run')
  @HttpCode(200)
  @ApiCall({
    id: 'runSchedule',
    summary: 'Enqueue or publish the message of a schedule now; its ticks stay as they are',
    needs: { scope: 'admin', reach: ['schedule'] },
    status: 200,
    answer: runScheduleAnswer,
    problems: [
      'invalid-request',
      'schedule-not-found',
      'queue-not-found',
      'topic-not-found',
      'queue-full',
      'queue-paused',
    ],
  })
  @ApiBody({ required: false })
  async runSchedule(
    @Param('schedule', { schema: scheduleName }) name: string,
    @Body({ schema: emptyRequest }) _request: unknown,
    @CalledBy() caller: Caller,
    @Audited() changes: Changes,
  ): Promise<RunScheduleAnswer> {
    const answer = await this.schedules.run(caller, name);
    changes.outcome(answer);
    return answer;
  }
}

/** The audit has no bodies of messages, and its time has the runs. */
function withoutBody(schedule: ScheduleAnswer | null): object | null {
  if (schedule === null) return null;
  const { message: _, nextRunAt: _next, lastRun: _last, lastFailure: _failure, ...definition } = schedule;
  return definition;
}
