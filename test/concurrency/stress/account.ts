import type { LeasedDelivery, ReceiptOutcomes } from '@rowmq/store';

const FAULTS_KEPT = 10;

/**
 * What became of deliveries, by what the repositories answered: to be balanced with what the
 * database holds in the end, and watched for what must never be.
 */
export class Account {
  stored = 0;
  expired = 0;
  purged = 0;
  /** Receipts that were refused. */
  refused = 0;
  /** What must never be, the first few. */
  readonly faults: string[] = [];
  /** When the answer to its ack came, by message. */
  private readonly ackedAt = new Map<string, number>();

  get acked(): number {
    return this.ackedAt.size;
  }

  /** Deliveries that the database should hold. */
  get owed(): number {
    return this.stored - this.acked - this.expired - this.purged;
  }

  /**
   * @param begunAt when the claim was sent: a message whose ack had been answered by then must not
   * be handed out.
   */
  recordLeased(leased: readonly LeasedDelivery[], begunAt: number): void {
    for (const { messageId } of leased) {
      const ackedAt = this.ackedAt.get(key(messageId));
      if (ackedAt !== undefined && ackedAt < begunAt)
        this.fault(`${messageId.toString('hex')} was handed out after its ack`);
    }
  }

  recordAcks(receipts: readonly Pick<LeasedDelivery, 'messageId'>[], outcomes: ReceiptOutcomes): void {
    for (const [index, { messageId }] of receipts.entries()) {
      if (outcomes[index] !== null) this.refused += 1;
      else if (this.ackedAt.has(key(messageId))) this.fault(`${messageId.toString('hex')} was acked twice`);
      else this.ackedAt.set(key(messageId), performance.now());
    }
  }

  private fault(text: string): void {
    if (this.faults.length < FAULTS_KEPT) this.faults.push(text);
  }
}

function key(messageId: Buffer): string {
  return messageId.toString('latin1');
}
