import { type DynamicModule, Global, Logger, Module, type OnApplicationBootstrap } from '@nestjs/common';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { checkServer, describeServer, refuseMissingGrants, StartupError } from './database/boot-checks.js';
import { AuditRepository } from './audit/audit.repository.js';
import { ApiKeyRepository } from './keys/api-key.repository.js';
import { SessionRepository } from './keys/session.repository.js';
import { BrowseRepository } from './queues/browse.repository.js';
import {
  addressOf,
  connectDataSource,
  type DatabaseSettings,
  dataSourceOptions,
  primaryOf,
} from './database/data-source.js';
import { Database } from './database/database.js';
import { StrainRepository } from './database/strain.repository.js';
import { DatabaseReport } from './database/database-report.js';
import { isRetryable } from './database/database-errors.js';
import { DeduplicationRepository } from './messages/deduplication.repository.js';
import { JobRepository } from './jobs/job.repository.js';
import { MessageRepository } from './messages/message.repository.js';
import { pendingOf, refuseNewerSchema } from './database/migrate.js';
import { PartitionRepository } from './partitions/partition.repository.js';
import { PeerRepository } from './peers/peer.repository.js';
import { MinuteRepository } from './queues/minute.repository.js';
import { QueueRepository } from './queues/queue.repository.js';
import { ReaperRepository } from './partitions/reaper.repository.js';
import { ScheduleRepository } from './schedules/schedule.repository.js';
import { TickRepository } from './schedules/tick.repository.js';
import { SettledRepository } from './messages/settled.repository.js';
import { UnleasedRepository } from './messages/unleased.repository.js';
import { WithdrawnRepository } from './messages/withdrawn.repository.js';
import { TopicCache } from './topics/topic-cache.js';
import { TopicRepository } from './topics/topic.repository.js';
import { STORE_OBSERVER, type StoreObserver } from './store-observer.js';

const REPOSITORIES = [
  ApiKeyRepository,
  SessionRepository,
  AuditRepository,
  QueueRepository,
  TopicCache,
  TopicRepository,
  UnleasedRepository,
  SettledRepository,
  BrowseRepository,
  MinuteRepository,
  PartitionRepository,
  DatabaseReport,
  ReaperRepository,
  PeerRepository,
  DeduplicationRepository,
  WithdrawnRepository,
  ScheduleRepository,
  TickRepository,
  JobRepository,
  StrainRepository,
];

/**
 * RowMQ's storage for a Nest application: one connection pool and the repositories on it. The
 * application does not start on an unsuitable database.
 */
@Global()
@Module({})
export class StoreModule implements OnApplicationBootstrap {
  private readonly logger = new Logger(StoreModule.name);

  constructor(private readonly dataSource: DataSource) {}

  static forRoot(settings: DatabaseSettings): DynamicModule {
    return {
      module: StoreModule,
      imports: [
        TypeOrmModule.forRootAsync({
          useFactory: () => ({
            ...dataSourceOptions({ ...settings, log: new Logger(Database.name) }),
            retryAttempts: 10,
            retryDelay: 1000,
            // A server may still be starting, so the application waits for it. A wrong password
            // stays wrong.
            toRetry: (error: unknown) => isRetryable((error as Error).cause),
          }),
          dataSourceFactory: (options) => connectDataSource(options as DataSourceOptions),
        }),
      ],
      providers: [
        {
          provide: Database,
          useFactory: (dataSource: DataSource) => new Database(dataSource),
          inject: [getDataSourceToken()],
        },
        {
          provide: MessageRepository,
          useFactory: (database: Database, queues: QueueRepository, topics: TopicCache, observer?: StoreObserver) =>
            new MessageRepository(database, observer, queues, undefined, topics),
          inject: [Database, QueueRepository, TopicCache, { token: STORE_OBSERVER, optional: true }],
        },
        ...REPOSITORIES.map((Repository) => ({
          provide: Repository,
          useFactory: (database: Database) => new Repository(database),
          inject: [Database],
        })),
      ],
      exports: [Database, MessageRepository, ...REPOSITORIES],
    };
  }

  async onApplicationBootstrap(): Promise<void> {
    const primary = primaryOf(this.dataSource);
    const which = primary.hasChoice ? `; the primary is ${primary.host}` : '';
    this.logger.log(`database ${addressOf(this.dataSource)}: ${await describeServer(this.dataSource)}${which}`);
    for (const warning of await checkServer(this.dataSource)) this.logger.warn(warning);
    const pending = await pendingOf(this.dataSource);
    if (pending.length > 0) {
      throw new StartupError(
        `The database lacks ${pending.length} migration(s): ${pending.join(', ')}. Run \`npm run migrate\`, then start again.`,
      );
    }
    const newer = await refuseNewerSchema(this.dataSource);
    if (newer.length > 0) this.logger.warn(`this version does not know the migration(s) ${newer.join(', ')}`);
    await refuseMissingGrants(this.dataSource);
  }
}
