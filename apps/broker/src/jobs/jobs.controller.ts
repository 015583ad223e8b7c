import { Controller, Delete, Get, Param, Query } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import {
  jobAnswer,
  type JobAnswer,
  jobId,
  jobQuery,
  type JobQuery,
  jobsAnswer,
  type JobsAnswer,
  jobsQuery,
  type JobsQuery,
} from '@rowmq/contract';
import { ApiCall } from '../http/api-call.js';
import { Audited, type Changes } from '../http/changes.js';
import { CalledBy, type Caller } from '../http/caller.js';
import { JobsService } from './jobs.service.js';

/** Jobs: how far they are, and their early end. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/jobs')
export class JobsController {
  constructor(private readonly jobs: JobsService) {}

  @Get()
  @ApiCall({
    id: 'listJobs',
    summary: 'A page of jobs, newest first',
    needs: { scope: 'admin' },
    hasQuery: true,
    status: 200,
    answer: jobsAnswer,
    problems: ['invalid-request'],
  })
  async listJobs(@Query({ schema: jobsQuery }) query: JobsQuery, @CalledBy() caller: Caller): Promise<JobsAnswer> {
    return this.jobs.list(caller, query);
  }

  @Get(':id')
  @ApiCall({
    id: 'getJob',
    summary: 'One job and its progress; waits for its end if asked to',
    needs: { scope: 'admin' },
    hasQuery: true,
    status: 200,
    answer: jobAnswer,
    problems: ['invalid-request', 'job-not-found'],
  })
  async getJob(
    @Param('id', { schema: jobId }) id: string,
    @Query({ schema: jobQuery }) { waitSeconds }: JobQuery,
    @CalledBy() caller: Caller,
  ): Promise<JobAnswer> {
    return this.jobs.get(caller, id, waitSeconds);
  }

  @Delete(':id')
  @ApiCall({
    id: 'cancelJob',
    summary: 'Cancel a job: it handles nothing more after the answer. A finished job stays as it is',
    needs: { scope: 'admin' },
    status: 200,
    answer: jobAnswer,
    problems: ['invalid-request', 'job-not-found'],
  })
  async cancelJob(
    @Param('id', { schema: jobId }) id: string,
    @CalledBy() caller: Caller,
    @Audited() changes: Changes,
  ): Promise<JobAnswer> {
    const job = await this.jobs.cancel(caller, id);
    changes.outcome({ state: job.state, done: job.done });
    return job;
  }
}
