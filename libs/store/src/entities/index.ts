import { ApiKeyEntity } from './api-key.entity.js';
import { AuditEntity } from './audit.entity.js';
import { BrokerEntity } from './broker.entity.js';
import { DashboardSessionEntity } from './dashboard-session.entity.js';
import { QueueMinuteEntity } from './queue-minute.entity.js';
import { JobEntity } from './job.entity.js';
import { QueueEntity } from './queue.entity.js';
import { ReaperLeaseEntity, ReaperRunEntity } from './reaper.entities.js';
import { ScheduleEntity } from './schedule.entity.js';
import { SubscriptionEntity, TopicEntity } from './topic.entities.js';

export {
  ApiKeyEntity,
  AuditEntity,
  BrokerEntity,
  DashboardSessionEntity,
  JobEntity,
  QueueEntity,
  QueueMinuteEntity,
  ReaperLeaseEntity,
  ReaperRunEntity,
  ScheduleEntity,
  SubscriptionEntity,
  TopicEntity,
};

/**
 * The tables that TypeORM's repositories read and write. All SQL for messages and deliveries is
 * written by hand.
 */
export const ENTITIES = [
  ApiKeyEntity,
  AuditEntity,
  BrokerEntity,
  DashboardSessionEntity,
  JobEntity,
  QueueEntity,
  QueueMinuteEntity,
  ReaperLeaseEntity,
  ReaperRunEntity,
  ScheduleEntity,
  SubscriptionEntity,
  TopicEntity,
];
