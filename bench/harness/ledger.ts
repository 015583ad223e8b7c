/** The balance of a load: what was enqueued, what was acked, and by their ids that nothing was lost or came twice. */
export class Ledger {
  enqueued = 0;
  acked = 0;
  private readonly outstanding = new Set<string>();
  /** Acked before the answer to their enqueue was read; also whatever is acked twice. */
  private readonly early = new Set<string>();

  /** @param byId false where others' messages are acked as well: then only the counts are kept. */
  constructor(private readonly byId: boolean) {}

  /** Messages that are enqueued and not acked yet. */
  get backlog(): number {
    return this.enqueued - this.acked;
  }

  recordEnqueued(ids: readonly string[]): void {
    this.enqueued += ids.length;
    if (!this.byId) return;
    for (const id of ids) if (!this.early.delete(id)) this.outstanding.add(id);
  }

  recordAcked(messages: readonly { id: string }[]): void {
    this.acked += messages.length;
    if (!this.byId) return;
    for (const { id } of messages) if (!this.outstanding.delete(id)) this.early.add(id);
  }

  /** Fails unless each message that was enqueued was acked exactly once. */
  assertBalanced(): void {
    if (this.outstanding.size === 0 && this.early.size === 0) return;
    const some = (ids: Set<string>): string => (ids.size > 0 ? ` (${[...ids].slice(0, 3).join(', ')})` : '');
    throw new Error(
      `Of ${this.enqueued} messages ${this.outstanding.size} were lost${some(this.outstanding)} and ${this.early.size} came twice or unasked${some(this.early)}.`,
    );
  }
}
