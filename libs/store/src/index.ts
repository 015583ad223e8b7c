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
export { Database, type Transaction } from './database/database.js';
export { isLockWaitTimeout, mayLieInOneRequest } from './database/database-errors.js';
export type { HealthLog } from './database/database-health.js';
export { migrateDatabase, pendingMigrations, revertDatabase } from './database/migrate.js';
export { NoPrimaryError } from './database/primary.js';
export type { Row, Session, Statement, WriteResult } from './database/session.js';
export type { Demand, LeasedMessage } from './messages/claim.js';
export { LEASE_GRACE_MS, type Position } from './messages/delivery.sql.js';
export type { EnqueueOutcome, EnqueueRequest, NewMessage, Reservation, Reserve } from './messages/enqueue.js';
export { type ClaimOutcome, MessageRepository, type ReleaseRequest } from './messages/message.repository.js';
export type { ReceiptOutcomes, ReceiptsRequest } from './messages/receipts.js';
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
export { type Queue, queueNotFound } from './queues/queue.js';
export { QueueRepository } from './queues/queue.repository.js';
export { StoreModule } from './store.module.js';
export { STORE_OBSERVER, type StoreObserver } from './store-observer.js';
