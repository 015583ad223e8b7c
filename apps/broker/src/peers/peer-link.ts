import { type Hint, MOST_QUEUES } from './hint.js';

/** The pause between two hints. A busy broker sends few, and no consumer hears much later. */
const PAUSE_MS = 2;

/** Sends one hint. Rejects if the peer did not take it. */
export type SendHint = (hint: Pick<Hint, 'ready' | 'parked'>) => Promise<void>;

/** Numbers of ready messages, by queue. Infinity: nobody knows how many. */
export type Ready = ReadonlyMap<string, number>;

/**
 * This process's knowledge of one peer, and the hints on their way there. One hint is in flight at
 * a time, and names gather meanwhile.
 */
export class PeerLink {
  /** Queues whose consumers are parked at the peer. A hint for a queue uses its entry up. */
  private readonly parkedThere = new Set<string>();
  /** Queues of which the peer knows that consumers are parked here. */
  private readonly parkedHere = new Set<string>();
  private ready = new Map<string, number>();
  private parked = new Set<string>();
  private isSending = false;
  /** The last hint failed. Until the next heartbeat the peer hears of no more parked consumers. */
  private isDown = false;

  /** @param onLost gets the messages of a hint that the peer did not take. */
  constructor(
    private readonly send: SendHint,
    private readonly onLost: (ready: Ready) => void,
  ) {}

  /** Hints that this queue has ready messages. Returns false if nobody is parked there for it. */
  wake(queueName: string, messages: number): boolean {
    if (this.ready.size >= MOST_QUEUES || !this.parkedThere.delete(queueName)) return false;
    this.ready.set(queueName, (this.ready.get(queueName) ?? 0) + messages);
    this.schedule();
    return true;
  }

  /** Tells the peer that consumers are parked here, unless it knows. */
  announce(queueName: string): void {
    if (this.isDown || this.parkedHere.size >= MOST_QUEUES || this.parkedHere.has(queueName)) return;
    this.parkedHere.add(queueName);
    this.parked.add(queueName);
    this.schedule();
  }

  /** The peer said that consumers are parked there. */
  isParkedThere(queueName: string): void {
    if (this.parkedThere.size < MOST_QUEUES) this.parkedThere.add(queueName);
  }

  /** A hint of the peer came for this queue. The peer sends no other before it is told again. */
  isHinted(queueName: string): void {
    this.parkedHere.delete(queueName);
  }

  /** Tells the peer everything again. This makes up for whatever was lost. */
  renew(parkedQueues: Iterable<string>): void {
    this.isDown = false;
    this.parkedHere.clear();
    for (const queueName of parkedQueues) this.announce(queueName);
  }

  /** Introduces this process, even if no consumers are parked. */
  greet(): void {
    this.schedule();
  }

  private schedule(): void {
    if (this.isSending) return;
    this.isSending = true;
    setImmediate(() => void this.sendAll());
  }

  private async sendAll(): Promise<void> {
    do {
      const { ready, parked } = this;
      this.ready = new Map();
      this.parked = new Set();
      try {
        await this.send({
          ready: [...ready].map(([queue, messages]) => ({ queue, ...(messages < Infinity && { messages }) })),
          parked: [...parked],
        });
      } catch {
        this.fail(ready);
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS).unref());
    } while (this.ready.size > 0 || this.parked.size > 0);
    this.isSending = false;
  }

  /** The peer says again where consumers are parked when it is back. */
  private fail(ready: Ready): void {
    const waiting = this.ready;
    this.isDown = true;
    this.parkedThere.clear();
    this.ready = new Map();
    this.parked = new Set();
    this.onLost(ready);
    this.onLost(waiting);
  }
}
