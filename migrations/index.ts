import { InitialSchema1700000000000 } from './1700000000000-initial-schema.js';
import { UnpartitionDelivery1700000001000 } from './1700000001000-unpartition-delivery.js';
import { LeaseTokenOfOneSize1700000002000 } from './1700000002000-lease-token-of-one-size.js';

/** Every migration, oldest first. */
export const MIGRATIONS = [
  InitialSchema1700000000000,
  UnpartitionDelivery1700000001000,
  LeaseTokenOfOneSize1700000002000,
];
