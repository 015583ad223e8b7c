/** A name may use a second's worth at once. */
const BURST_MS = 1000;
/** Names that are remembered. */
const REMEMBERED = 10_000;

/**
 * Token buckets by name, each as one number: the time at which its debt is paid (GCRA). A request
 * is admitted whole if there is no debt, so that a large one is late and never stuck.
 *
 * Packages were weighed: they answer with a promise, count in windows, or cannot say when to come
 * again. This is shorter than the code that would adapt one.
 */
export class Rates {
  private readonly paidAt = new Map<string, number>();

  /** The ms until the name may use something. 0: now. */
  waitMs(name: string, now = performance.now()): number {
    return Math.max(0, (this.paidAt.get(name) ?? 0) - now);
  }

  /** Uses so many at a rate a second. */
  use(name: string, amount: number, perSecond: number, now = performance.now()): void {
    const from = Math.max(this.paidAt.get(name) ?? 0, now - BURST_MS);
    if (this.paidAt.size >= REMEMBERED && !this.paidAt.has(name)) this.forgetPaid(now);
    this.paidAt.set(name, from + (amount * 1000) / perSecond);
  }

  /** A name without a debt for a second is as good as unknown. */
  private forgetPaid(now: number): void {
    for (const [name, paidAt] of this.paidAt) if (paidAt <= now - BURST_MS) this.paidAt.delete(name);
    // All are in debt: the first one goes, and the memory stays bounded.
    if (this.paidAt.size >= REMEMBERED) this.paidAt.delete(this.paidAt.keys().next().value as string);
  }
}
