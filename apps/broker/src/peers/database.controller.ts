import { Controller, Get } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import { databaseAnswer, type DatabaseAnswer } from '@rowmq/contract';
import { Database, DatabaseReport, PartitionRepository, PeerRepository } from '@rowmq/store';
import { ApiCall } from '../http/api-call.js';
import { formatTime } from '../messages/message.codec.js';

/** Shows how the database is, and which brokers use it. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('v1/admin/database')
export class DatabaseController {
  constructor(
    private readonly database: Database,
    private readonly report: DatabaseReport,
    private readonly partitions: PartitionRepository,
    private readonly peers: PeerRepository,
  ) {}

  @Get()
  @ApiCall({
    summary: 'The state of the database server, its tables and partitions, and the brokers that use it',
    needs: { scope: 'admin', reach: 'everything' },
    status: 200,
    answer: databaseAnswer,
    problems: ['invalid-request'],
  })
  async getDatabase(): Promise<DatabaseAnswer> {
    const [state, partitions, brokers] = await Promise.all([
      this.report.read(),
      this.partitions.list(),
      this.peers.live(),
    ]);
    const { isUp, hasSeveralServers, failures } = this.database.health;
    const time = (at: number | null): string | null => (at === null ? null : formatTime(at));
    return {
      ...state,
      thisBroker: { isUp, hasSeveralServers, failures: Object.fromEntries(failures) },
      brokers: brokers.map(({ id, url }) => ({ id, url })),
      partitions: partitions.map(({ from, until, ...rest }) => ({ ...rest, from: time(from), until: time(until) })),
    };
  }
}
