import { QueueEntity } from './queue.entity.js';
import { ReaperLeaseEntity, ReaperRunEntity } from './reaper.entities.js';

export { QueueEntity, ReaperLeaseEntity, ReaperRunEntity };

/**
 * The tables that TypeORM's repositories read and write. Messages and deliveries have hand-written
 * SQL only.
 */
export const ENTITIES = [QueueEntity, ReaperLeaseEntity, ReaperRunEntity];
