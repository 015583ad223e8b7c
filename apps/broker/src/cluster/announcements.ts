/** Queues that may wait for the next message. The poll finds messages of other queues. */
const MOST_QUEUES = 1000;
/** The pause between two messages. A busy broker sends few, and no consumer hears much later. */
const PAUSE_MS = 5;

/**
 * Names queues to another process at once. The queues of one turn of the event loop share a
 * message, and one message is in flight at a time.
 */
export class Announcements {
  private readonly queues = new Set<string>();
  private isSending = false;

  /** @param send calls back when the message is on its way; until then, names gather */
  constructor(private readonly send: (queues: string[], sent: () => void) => void) {}

  add(queue: string): void {
    if (this.queues.size >= MOST_QUEUES) return;
    this.queues.add(queue);
    if (this.isSending) return;
    this.isSending = true;
    setImmediate(() => this.next());
  }

  private next(): void {
    if (this.queues.size === 0) {
      this.isSending = false;
      return;
    }
    const queues = [...this.queues];
    this.queues.clear();
    this.send(queues, () => setTimeout(() => this.next(), PAUSE_MS).unref());
  }
}
