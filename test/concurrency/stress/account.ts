import type { LeasedMessage, Published, ReceiptOutcomes } from '@rowmq/store';

const FAULTS_KEPT = 10;

/** The body of messages of topics: several queues may owe one. */
export const PUBLISHED = Buffer.from('published');

/**
 * Counts the owed messages by the repositories' answers. At the end the count must match the
 * database. It also records violations of a guarantee.
 */
export class Account {
  stored = 0;
  handedOff = 0;
  expired = 0;
  purged = 0;
  /** Messages that jobs moved or settled, by the state in which the jobs ended. */
  readonly jobs = new Map<string, number>();
  /** Refused receipts. */
  refused = 0;
  /** The first violations of a guarantee. */
  readonly faults: string[] = [];
  acked = 0;
  /** By message, the times when its acks were answered. */
  private readonly ackedAt = new Map<string, number[]>();
  /** By message, the number of queues that it was published to. */
  private readonly copies = new Map<string, number>();

  /** The number of messages that the database should owe. */
  get owed(): number {
    return this.stored - this.acked - this.expired - this.purged;
  }

  /**
   * @param begunAt When the claim was sent. It must return no message whose ack was answered
   * before.
   */
  recordLeased(leased: readonly LeasedMessage[], begunAt: number): void {
    for (const { messageId, body } of leased) {
      const acks = (this.ackedAt.get(key(messageId)) ?? []).filter((at) => at < begunAt);
      if (acks.length >= this.copiesOf(messageId, body))
        this.fault(`${messageId.toString('hex')} was handed out after its ack`);
    }
  }

  recordAcks(receipts: readonly Pick<LeasedMessage, 'messageId' | 'body'>[], outcomes: ReceiptOutcomes): void {
    for (const [index, { messageId, body }] of receipts.entries()) {
      if (outcomes[index] !== null) {
        this.refused += 1;
        continue;
      }
      const acks = this.ackedAt.get(key(messageId)) ?? [];
      if (acks.length >= this.copiesOf(messageId, body)) this.fault(`${messageId.toString('hex')} was acked twice`);
      this.ackedAt.set(key(messageId), [...acks, performance.now()]);
      this.acked += 1;
    }
  }

  recordPublished(published: readonly Published[]): void {
    for (const { id, queues } of published) {
      this.stored += queues.length;
      this.copies.set(key(id), queues.length);
      const acks = this.ackedAt.get(key(id)) ?? [];
      if (acks.length > queues.length) this.fault(`${id.toString('hex')} was acked more often than it was stored`);
    }
  }

  /** Consumers may be faster than the answer of a publish. Until then, the number is unknown. */
  private copiesOf(messageId: Buffer, body: Buffer): number {
    return this.copies.get(key(messageId)) ?? (body.equals(PUBLISHED) ? Infinity : 1);
  }

  fault(text: string): void {
    if (this.faults.length < FAULTS_KEPT) this.faults.push(text);
  }
}

function key(messageId: Buffer): string {
  return messageId.toString('latin1');
}
