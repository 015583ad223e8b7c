import type { Guarantees } from './guarantee.js';
import { type Lease, leasesInOrder, type Message } from './ledger.js';

/** A message with the last instants at which it was certainly owed. */
interface Owed {
  message: Message;
  id: string;
  /** It was handed out, by the database's clock. */
  handedOutOnDatabase: number;
  /** An ack was sent that settled it. */
  ackedAt: number;
}

/**
 * Judges the order within each group of the run's ordered queues. The ids of a group's messages
 * ascend in the order of their commits. While a message is owed, no later one of its group may be
 * handed out, unless the same answer has both, in order.
 */
export function judgeOrder(guarantees: Guarantees, messages: readonly Message[]): void {
  for (const group of groupsOf(messages).values()) {
    group.sort((one, other) => (one.id < other.id ? -1 : 1));
    let [lastHandedOut, lastAcked] = [0, 0];
    for (const [index, { message, handedOutOnDatabase, ackedAt }] of group.entries()) {
      for (const lease of leasesInOrder(message)) {
        guarantees.ordered.checked();
        if (lease.handedOutOnDatabase >= lastHandedOut && lease.receivedAt >= lastAcked) continue;
        const overtaken = group.slice(0, index).find((earlier) => isOvertaken(earlier, lease));
        if (overtaken !== undefined) {
          guarantees.ordered.broken(message, `lease ${lease.number} came before message ${overtaken.id} of its group`);
        }
      }
      lastHandedOut = Math.max(lastHandedOut, handedOutOnDatabase);
      lastAcked = Math.max(lastAcked, ackedAt);
    }
  }
}

function groupsOf(messages: readonly Message[]): Map<string, Owed[]> {
  const groups = new Map<string, Owed[]>();
  for (const message of messages) {
    const { id, queue, group, leases } = message;
    if (group === 0 || id === undefined) continue;
    const key = `${queue} ${group}`;
    const handedOutOnDatabase = Math.max(0, ...leases.map((lease) => lease.handedOutOnDatabase));
    const ackedAt = Math.max(0, ...leases.filter(hasSettled).map(({ settleSentAt }) => settleSentAt));
    const owed = { message, id, handedOutOnDatabase, ackedAt };
    const known = groups.get(key);
    if (known === undefined) groups.set(key, [owed]);
    else known.push(owed);
  }
  return groups;
}

/** The ack surely settled the message, and not the ack of a later lease. */
function hasSettled({ settle, outcome, settleAnsweredAt, heldUntil }: Lease): boolean {
  return settle === 'ack' && outcome === 'confirmed' && settleAnsweredAt <= heldUntil;
}

function isOvertaken({ message, handedOutOnDatabase, ackedAt }: Owed, lease: Lease): boolean {
  const shared = message.leases.find(
    ({ consumer, askedAt }) => consumer === lease.consumer && askedAt === lease.askedAt,
  );
  if (shared !== undefined) return shared.number > lease.number;
  return handedOutOnDatabase > lease.handedOutOnDatabase || ackedAt > lease.receivedAt;
}
