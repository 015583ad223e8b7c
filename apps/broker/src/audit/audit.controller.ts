import { Controller, Get, Query } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import { auditAnswer, type AuditAnswer, type AuditEntry, auditQuery, type AuditQuery } from '@rowmq/contract';
import { AuditRepository } from '@rowmq/store';
import { ApiCall } from '../http/api-call.js';
import { formatTime } from '../messages/message.codec.js';

/** Shows what administrators did. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/audit')
export class AuditController {
  constructor(private readonly audit: AuditRepository) {}

  @Get()
  @ApiCall({
    summary: 'A page of the actions of administrators, done and refused, the latest first',
    needs: { scope: 'admin', reach: 'everything' },
    hasQuery: true,
    status: 200,
    answer: auditAnswer,
    problems: ['invalid-request'],
  })
  async listAudit(@Query({ schema: auditQuery }) query: AuditQuery): Promise<AuditAnswer> {
    const { rows, isLast } = await this.audit.list(query);
    const entries = rows.map(({ id: _, at, changes, ...row }) => ({
      ...row,
      at: formatTime(at),
      changes: changes === null ? null : (JSON.parse(changes) as AuditEntry['changes']),
    }));
    return { entries, nextAfter: isLast ? null : String(rows.at(-1)?.id) };
  }
}
