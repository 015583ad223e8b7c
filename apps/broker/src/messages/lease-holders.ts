import { Injectable } from '@nestjs/common';

/** Leases that a broker remembers, in 5 to 15 MB. */
const REMEMBERED = 65_536;
const NAME_CHARS = 128;

/**
 * The consumers that got, or last extended, the latest leases at this broker. It is for operators,
 * and best effort: the names are in memory only, and a new lease takes the place of the oldest. A
 * consumer that renews its leases is remembered by each renewal.
 *
 * A column would cost each claim redo and binlog, and would need a row per consumer: consumers that
 * share a claim share deliveries. This costs two array elements a message.
 */
@Injectable()
export class LeaseHolders {
  private readonly receipts: string[] = [];
  private readonly consumers: string[] = [];
  private next = 0;

  /** Remembers who holds these leases. Without a name, there is nothing to remember. */
  record(consumer: string | undefined, leases: readonly { receipt: string }[]): void {
    if (consumer === undefined || leases.length === 0) return;
    const name = consumer.length > NAME_CHARS ? copy(consumer.slice(0, NAME_CHARS)) : consumer;
    for (const { receipt } of leases) {
      this.receipts[this.next] = receipt;
      this.consumers[this.next] = name;
      this.next = (this.next + 1) % REMEMBERED;
    }
  }

  /** The names behind these receipts, as far as they are remembered. */
  find(receipts: ReadonlySet<string>): Map<string, string> {
    const found = new Map<string, string>();
    if (receipts.size === 0) return found;
    const count = this.receipts.length;
    // From the oldest to the latest, which counts.
    for (let index = 0; index < count; index += 1) {
      const at = (this.next + index) % count;
      const receipt = this.receipts[at] as string;
      if (receipts.has(receipt)) found.set(receipt, this.consumers[at] as string);
    }
    return found;
  }
}

/** V8 keeps the whole of a long string alive for a slice of it. */
function copy(text: string): string {
  return Buffer.from(text).toString();
}
