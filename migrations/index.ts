import { InitialSchema1700000000000 } from './1700000000000-initial-schema.js';
import { UnpartitionDelivery1700000001000 } from './1700000001000-unpartition-delivery.js';

/** Every migration, oldest first. */
export const MIGRATIONS = [InitialSchema1700000000000, UnpartitionDelivery1700000001000];
