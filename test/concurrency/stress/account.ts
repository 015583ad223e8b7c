import type { LeasedMessage, ReceiptOutcomes } from '@rowmq/store';

const FAULTS_KEPT = 10;

/**
 * Counts the owed messages by the repositories' answers. At the end the count must match the
 * database. It also records violations of a guarantee.
 */
export class Account {
  stored = 0;
  handedOff = 0;
  expired = 0;
  purged = 0;
  /** Refused receipts. */
  refused = 0;
  /** The first violations of a guarantee. */
  readonly faults: string[] = [];
  /** By message, the time when its ack was answered. */
  private readonly ackedAt = new Map<string, number>();

  get acked(): number {
    return this.ackedAt.size;
  }

  /** The number of messages that the database should owe. */
  get owed(): number {
    return this.stored - this.acked - this.expired - this.purged;
  }

  /**
   * @param begunAt When the claim was sent. It must return no message whose ack was answered
   * before.
   */
  recordLeased(leased: readonly LeasedMessage[], begunAt: number): void {
    for (const { messageId } of leased) {
      const ackedAt = this.ackedAt.get(key(messageId));
      if (ackedAt !== undefined && ackedAt < begunAt)
        this.fault(`${messageId.toString('hex')} was handed out after its ack`);
    }
  }

  recordAcks(receipts: readonly Pick<LeasedMessage, 'messageId'>[], outcomes: ReceiptOutcomes): void {
    for (const [index, { messageId }] of receipts.entries()) {
      if (outcomes[index] !== null) this.refused += 1;
      else if (this.ackedAt.has(key(messageId))) this.fault(`${messageId.toString('hex')} was acked twice`);
      else this.ackedAt.set(key(messageId), performance.now());
    }
  }

  fault(text: string): void {
    if (this.faults.length < FAULTS_KEPT) this.faults.push(text);
  }
}

function key(messageId: Buffer): string {
  return messageId.toString('latin1');
}
