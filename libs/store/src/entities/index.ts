import { DeliveryEntity } from './delivery.entity.js';
import { MessageEntity } from './message.entity.js';
import { QueueEntity } from './queue.entity.js';
import { ReaperLeaseEntity, ReaperRunEntity } from './reaper.entities.js';

export { DeliveryEntity, MessageEntity, QueueEntity, ReaperLeaseEntity, ReaperRunEntity };

export const ENTITIES = [QueueEntity, MessageEntity, DeliveryEntity, ReaperLeaseEntity, ReaperRunEntity];
