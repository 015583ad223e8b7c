export {
  checkServer,
  judgeGalera,
  judgeGroup,
  judgeProduct,
  judgeServer,
  refuseMissingGrants,
  serverKind,
  StartupError,
} from './database/boot-checks.js';
export { type DatabaseSettings, openDataSource, poolOf } from './database/data-source.js';
export { DatabaseReport } from './database/database-report.js';
export { Database, type Transaction } from './database/database.js';
export { type Strain, StrainRepository } from './database/strain.repository.js';
export { isLockWaitTimeout, mayLieInOneRequest } from './database/database-errors.js';
export type { HealthLog } from './database/database-health.js';
export { migrateDatabase, pendingMigrations, revertDatabase } from './database/migrate.js';
export { NoPrimaryError } from './database/primary.js';
export type { Row, Session, Statement, WriteResult } from './database/session.js';
export { AuditRepository, type AuditRow } from './audit/audit.repository.js';
export { ApiKeyRepository, type ApiKeys } from './keys/api-key.repository.js';
export { type ApiKey, digestOf, isSameDigest, keyIdOf } from './keys/api-key.js';
export { SessionRepository, type StoredSession } from './keys/session.repository.js';
export { JobLost } from './jobs/job.js';
export { type JobBatch, JobRepository, type NewJob } from './jobs/job.repository.js';
export type { ClaimRequest, Demand } from './messages/claim.js';
export type { LeasedMessage } from './messages/leased-message.js';
export { LEASE_GRACE_MS, type Position } from './messages/delivery.sql.js';
export type { EnqueueOutcome } from './messages/enqueue.js';
export type { Reservation, Reserve } from './messages/hand-off.js';
export type { EnqueueRequest, NewMessage } from './messages/new-message.js';
export { DeduplicationRepository } from './messages/deduplication.repository.js';
export {
  type ClaimOutcome,
  MessageRepository,
  type NackRequest,
  type ReleaseRequest,
} from './messages/message.repository.js';
export type { Wish } from './messages/one-message.js';
export type { Published, PublishedMessage, PublishOutcome, PublishRequest } from './messages/publish.js';
export { openSecret } from './keys/sealed-secret.js';
export type { LateWish } from './messages/late.js';
export { deadLetteringOf } from './messages/moves.js';
export type { EnqueuedMessage } from './messages/recorded-answer.js';
export { type Move, readMoves } from './messages/moves.js';
export { countMembers } from './messages/members.js';
export type { ReceiptOutcomes, ReceiptsRequest } from './messages/receipts.js';
export { type SettledMessage, type SettledPack, SettledRepository } from './messages/settled.repository.js';
export { WithdrawnRepository } from './messages/withdrawn.repository.js';
export { FIRST_ID, type RedriveBatch, type Stretch, UnleasedRepository } from './messages/unleased.repository.js';
export { type Partition, PartitionRepository } from './partitions/partition.repository.js';
export { type DutyState, ReaperRepository, type ReaperRun } from './partitions/reaper.repository.js';
export { type Peer, PEER_SILENCE_MS, PeerRepository } from './peers/peer.repository.js';
export {
  BrowseRepository,
  type DeliveryStats,
  type DeliveryView,
  type MessageView,
} from './queues/browse.repository.js';
export {
  type EventCounts,
  type MinuteEvent,
  MinuteRepository,
  newHour,
  noRates,
  type QueueHour,
} from './queues/minute.repository.js';
export { type Queue, queueNotFound } from './queues/queue.js';
export { type PausedSides, type QueueChange, QueueRepository } from './queues/queue.repository.js';
export type { JobEntity, ScheduleEntity } from './entities/index.js';
export { ScheduleRepository } from './schedules/schedule.repository.js';
export { TickRepository } from './schedules/tick.repository.js';
export { StoreModule } from './store.module.js';
export { TopicCache } from './topics/topic-cache.js';
export { type SubscriptionView, TopicRepository, type TopicView } from './topics/topic.repository.js';
export { STORE_OBSERVER, type StoreObserver } from './store-observer.js';
