import { BrokerEntity } from './broker.entity.js';
import { QueueEntity } from './queue.entity.js';
import { ReaperLeaseEntity, ReaperRunEntity } from './reaper.entities.js';

export { BrokerEntity, QueueEntity, ReaperLeaseEntity, ReaperRunEntity };

/**
 * The tables that TypeORM's repositories read and write. All SQL for messages and deliveries is
 * written by hand.
 */
export const ENTITIES = [BrokerEntity, QueueEntity, ReaperLeaseEntity, ReaperRunEntity];
