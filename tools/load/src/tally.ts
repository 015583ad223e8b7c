/**
 * Checks that every message of a load came back exactly once.
 *
 * It forgets a message that came back, because a run of ten minutes sends ten million. A second
 * return of the same message therefore shows as one that was never sent.
 */
export class Tally<Key extends string | number> {
  sent = 0;
  returned = 0;
  /** Since when each message is missing. */
  private readonly missing = new Map<Key, number>();
  /** Came back before their sending was recorded, or came back again. */
  private readonly early = new Set<Key>();
  private readonly waiting: (() => void)[] = [];

  /** @param byKey false where the load also gets messages of others: then it only counts. */
  constructor(private readonly byKey = true) {}

  /** Messages that were sent and have not come back. */
  get outstanding(): number {
    return this.sent - this.returned;
  }

  send(keys: readonly Key[], at = 0): void {
    this.sent += keys.length;
    if (this.byKey) for (const key of keys) if (!this.early.delete(key)) this.missing.set(key, at);
    this.tellWhoWaits();
  }

  /** When a message was sent that has not come back yet; else undefined. */
  sentAt(key: Key): number | undefined {
    return this.missing.get(key);
  }

  return(keys: readonly Key[]): void {
    this.returned += keys.length;
    if (this.byKey) for (const key of keys) if (!this.missing.delete(key)) this.early.add(key);
    this.tellWhoWaits();
  }

  /** Resolves once as many messages have come back as were sent. */
  async allReturned(): Promise<void> {
    if (this.outstanding !== 0) await new Promise<void>((proceed) => this.waiting.push(proceed));
  }

  /** Throws unless each message that was sent came back exactly once. */
  assertBalanced(): void {
    const { missing, early } = this;
    if (missing.size === 0 && early.size === 0) return;
    throw new Error(
      `Of ${this.sent} messages ${missing.size} were lost${examples(missing.keys())} and ` +
        `${early.size} came twice or were never sent${examples(early)}.`,
    );
  }

  private tellWhoWaits(): void {
    if (this.outstanding === 0) for (const proceed of this.waiting.splice(0)) proceed();
  }
}

function examples(keys: Iterable<string | number>): string {
  const first = [...keys].slice(0, 3);
  return first.length === 0 ? '' : ` (${first.join(', ')})`;
}
