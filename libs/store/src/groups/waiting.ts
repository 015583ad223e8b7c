import type { Delivery } from '../messages/delivery.js';

/** Waiting deliveries have this `available_at`, plus their group's key. No real time comes near. */
export const WAITING = 2 ** 52;

/** Whether a delivery waits behind another one of its group. */
export function isWaiting({ availableAt }: Pick<Delivery, 'availableAt'>): boolean {
  return availableAt >= WAITING;
}
