/** Times that lie closer together than this count as one. */
const GRAIN_MS = 25;
/** Times remembered: of those beyond it, a look finds what has become available. */
const REMEMBERED = 10_000;

/** When delays end that began on this broker. */
export class DueTimes {
  private readonly timers = new Map<string, NodeJS.Timeout>();

  constructor(private readonly onDue: (queueName: string) => void) {}

  add(queueName: string, inMs: number): void {
    const grain = Math.ceil((performance.now() + inMs) / GRAIN_MS);
    const key = `${grain} ${queueName}`;
    if (this.timers.has(key) || this.timers.size >= REMEMBERED) return;
    const timer = setTimeout(
      () => {
        this.timers.delete(key);
        this.onDue(queueName);
      },
      grain * GRAIN_MS - performance.now(),
    );
    this.timers.set(key, timer.unref());
  }

  clear(): void {
    for (const timer of this.timers.values()) clearTimeout(timer);
    this.timers.clear();
  }
}
