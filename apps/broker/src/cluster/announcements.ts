/** Queues that may wait to be named. What is in others, a look finds. */
const MOST_QUEUES = 1000;
/** Between two messages: so that a busy broker sends few, and a consumer in another process hears so much later at most. */
const PAUSE_MS = 5;

/** Names queues to another process: at once, but all of one turn of the event loop in one message, and one message at a time. */
export class Announcements {
  private readonly queues = new Set<string>();
  private isSending = false;

  /** `send` calls back when the message is on its way; until it does, names gather. */
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
