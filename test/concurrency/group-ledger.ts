import { RowmqError } from '@rowmq/contract';
import type { LeasedMessage } from '@rowmq/store';

/** The messages that groups owe, as far as the clients know. */
export class Ledger {
  readonly violations: string[] = [];
  readonly sent = new Set<string>();
  readonly acked = new Set<string>();
  /** Messages that were rejected. The dead-letter queue has them. */
  readonly rejected = new Set<string>();
  readonly cancelled = new Set<string>();
  handedOff = 0;
  followers = 0;
  /** Numbers of messages that expired or were purged. Nobody says which. */
  expired = 0;
  purged = 0;
  /** Messages of requests that got no answer. */
  unanswered = 0;
  /** The number of requests about each message that are on their way, or got no answer. */
  readonly inDoubt = new Map<string, number>();
  /** Messages that may have been purged, or may expire. */
  readonly mortal = new Set<string>();
  /** When an operator's or a consumer's reject or cancel was answered. */
  private readonly goneAt = new Map<string, number>();
  /** By `Date.now()`, when the ack was sent that settled the message. */
  private readonly ackSentAt = new Map<string, number>();
  private readonly owed = new Map<string, Set<string>>();
  private purges = 0;
  private purgedUntil = 0;

  /** @param begun when the enqueue was sent */
  stored(group: string, id: Buffer, begun: number, expires: boolean): void {
    const name = text(id);
    this.sent.add(name);
    this.owed.set(group, (this.owed.get(group) ?? new Set()).add(name));
    if (expires || this.purges > 0 || this.purgedUntil >= begun) this.mortal.add(name);
  }

  /** The messages that no client knows to be gone. */
  get left(): number {
    return this.sent.size - this.ended;
  }

  /** Messages that were settled or dead-lettered. */
  get ended(): number {
    return this.acked.size + this.rejected.size + this.cancelled.size + this.expired + this.purged;
  }

  /** Messages that nobody has settled, and that are not there either. */
  get lost(): string[] {
    return [...this.sent].filter((id) => !this.mayBeGone(id));
  }

  /** The messages that must come before any later one of their group. */
  before(group: string): string[] {
    return [...(this.owed.get(group) ?? [])];
  }

  /**
   * @param owed the messages that the groups owed before the claim
   * @param begun when the claim was sent
   */
  received(leased: readonly LeasedMessage[], owed: ReadonlyMap<string, readonly string[]>, begun: number): void {
    const last = new Map<string, string>();
    for (const { messageId, groupId = '', leaseExpiresAt } of leased) {
      const id = text(messageId);
      // A busy process may see an answer after its lease, and after the ack of the next one.
      const isStale = leaseExpiresAt < (this.ackSentAt.get(id) ?? 0);
      if (this.acked.has(id) && !this.inDoubt.has(id) && !isStale) this.violations.push(`${id} came after its ack`);
      if ((this.goneAt.get(id) ?? Infinity) < begun) this.violations.push(`${id} came after its reject or cancel`);
      if (id <= (last.get(groupId) ?? '')) this.violations.push(`${id} came behind ${last.get(groupId)}`);
      const overtaken = (owed.get(groupId) ?? []).filter(
        (one) => one < id && one > (last.get(groupId) ?? '') && !this.mayBeGone(one),
      );
      if (overtaken.length > 0) this.violations.push(`${id} overtook ${overtaken.join(', ')}`);
      last.set(groupId, id);
    }
  }

  async ack(leased: readonly LeasedMessage[], ack: () => Promise<(string | null)[]>): Promise<void> {
    const sentAt = Date.now();
    await this.settle(leased, ack, (id) => {
      this.ackSentAt.set(id, sentAt);
      if (this.acked.has(id)) this.violations.push(`${id} was acked twice`);
      this.acked.add(id);
    });
  }

  async reject(leased: readonly LeasedMessage[], reject: () => Promise<(string | null)[]>): Promise<void> {
    await this.settle(leased, reject, (id) => {
      if (this.acked.has(id) || this.rejected.has(id)) this.violations.push(`${id} was rejected after its end`);
      this.rejected.add(id);
      this.goneAt.set(id, performance.now());
    });
  }

  /** @param cancel resolves if it has settled the message */
  async cancel(id: string, cancel: () => Promise<unknown>): Promise<void> {
    this.doubt(id, 1);
    try {
      await cancel();
    } catch (error) {
      if (!(error instanceof RowmqError)) throw error;
      if (['message-leased', 'delivery-not-found', 'overloaded'].includes(error.code)) this.doubt(id, -1);
      else this.unanswered += 1;
      return;
    }
    if (this.acked.has(id) || this.rejected.has(id)) this.violations.push(`${id} was cancelled after its end`);
    this.cancelled.add(id);
    this.goneAt.set(id, performance.now());
    this.doubt(id, -1);
  }

  /** Every message that is there now, or comes meanwhile, may be gone afterwards. */
  async purge(purge: () => Promise<{ purged: number }>): Promise<void> {
    this.purges += 1;
    for (const id of this.sent) this.mortal.add(id);
    const { purged } = await purge();
    this.purged += purged;
    this.purges -= 1;
    this.purgedUntil = performance.now();
  }

  private async settle(
    leased: readonly LeasedMessage[],
    verb: () => Promise<(string | null)[]>,
    settled: (id: string) => void,
  ): Promise<void> {
    for (const { messageId } of leased) this.doubt(text(messageId), 1);
    let outcomes: (string | null)[];
    try {
      outcomes = await verb();
    } catch (error) {
      if (!(error instanceof RowmqError)) throw error;
      this.unanswered += leased.length;
      return;
    }
    for (const [index, { messageId, groupId = '' }] of leased.entries()) {
      const id = text(messageId);
      if (outcomes[index] === null) {
        settled(id);
        this.owed.get(groupId)?.delete(id);
      }
      if (outcomes[index] !== 'delivery-not-found') this.doubt(id, -1);
    }
  }

  private mayBeGone(id: string): boolean {
    return this.acked.has(id) || this.inDoubt.has(id) || this.goneAt.has(id) || this.mortal.has(id);
  }

  /** A stale holder's refusal says nothing of another request that is on its way. */
  private doubt(id: string, change: 1 | -1): void {
    const requests = (this.inDoubt.get(id) ?? 0) + change;
    if (requests > 0) this.inDoubt.set(id, requests);
    else this.inDoubt.delete(id);
  }
}

export function text(id: Buffer): string {
  return id.toString('hex');
}

export function pick<T>(list: readonly T[]): T {
  return list[Math.floor(Math.random() * list.length)] as T;
}
