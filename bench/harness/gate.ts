/** Holds workers back while a condition does not hold, and lets them through one by one in the order they came. */
export class Gate {
  private readonly waiting: (() => void)[] = [];

  constructor(private readonly isOpen: () => boolean) {}

  async pass(): Promise<void> {
    while (!this.isOpen()) await new Promise<void>((resolve) => this.waiting.push(resolve));
  }

  /** To be called when the condition may have come true for one worker. */
  wakeOne(): void {
    if (this.isOpen()) this.waiting.shift()?.();
  }

  /** To be called when the condition has come true for good. */
  wakeAll(): void {
    for (const wake of this.waiting.splice(0)) wake();
  }
}
