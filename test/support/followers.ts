import { LEASE_GRACE_MS, type LeasedMessage, type NewMessage } from '@rowmq/store';
import { bodies, message } from './store.js';

/* For tests of groups whose consumer holds several messages. Their names are like `a1` and `b2`. */

export const T0 = 1_800_000_000_000;
export const SECOND = 1000;
export const LEASE_SECONDS = 60;
export const LEASE_END = T0 + LEASE_SECONDS * SECOND + LEASE_GRACE_MS;

/** A message with its name as its body. The letter is its group. */
export function named(name: string, overrides: Partial<NewMessage> = {}): NewMessage {
  return message({ body: Buffer.from(name), groupId: name.slice(0, 1), ...overrides });
}

export function names(leased: readonly LeasedMessage[]): string {
  return bodies(leased).join(' ');
}

/** Names, and how often each message was handed out. */
export function counted(leased: readonly LeasedMessage[]): string {
  return leased.map(({ body, receiveCount }) => `${String(body)}/${receiveCount}`).join(' ');
}

/** The receipts of the messages with these names. */
export function held(leased: readonly LeasedMessage[], ...wanted: string[]): LeasedMessage[] {
  return leased.filter(({ body }) => wanted.includes(String(body)));
}
