import { queueNotFound, type MessageRepository, type QueueRepository } from '@rowmq/store';

/**
 * The first pause before the poll of an idle queue. Each pause is half as long again as the one
 * before.
 */
export const SHORTEST_PAUSE_MS = 20;
/**
 * The longest pause. A delay that ends, or a message of another broker, is noticed this late at
 * most.
 */
const LONGEST_PAUSE_MS = 250;
const QUEUES_PER_POLL = 500;

export interface IdleQueue {
  readonly queueName: string;
  /** Until the next poll. Grows with every poll. */
  pauseMs: number;
  /** The poll is due. Returns whether parked consumers need it. */
  pollIsDue(): boolean;
}

/**
 * Polls queues with parked consumers for messages that became ready without this broker's
 * knowledge. One statement polls all queues that are due now or soon, so many idle queues cost
 * hardly more than one.
 */
export class IdlePoll<Queue extends IdleQueue> {
  /** When each queue is due, by `performance.now()`. */
  private readonly dueAt = new Map<Queue, number>();
  private timer: NodeJS.Timeout | undefined;
  private timerAt = Infinity;
  private isPolling = false;

  constructor(
    private readonly messages: Pick<MessageRepository, 'poll'>,
    private readonly queues: Pick<QueueRepository, 'getAll'>,
    private readonly listener: {
      /** A message is ready, or was a moment ago. */
      onReady: (queue: Queue) => void;
      onGone: (queue: Queue, error: Error) => void;
    },
  ) {}

  add(queue: Queue): void {
    const at = performance.now() + queue.pauseMs;
    this.dueAt.set(queue, at);
    this.schedule(at);
  }

  remove(queue: Queue): void {
    this.dueAt.delete(queue);
  }

  close(): void {
    clearTimeout(this.timer);
    this.dueAt.clear();
  }

  private schedule(at: number): void {
    if (this.isPolling || at >= this.timerAt) return;
    clearTimeout(this.timer);
    this.timerAt = at;
    this.timer = setTimeout(() => void this.round(), Math.max(at - performance.now(), 1)).unref();
  }

  private async round(): Promise<void> {
    this.isPolling = true;
    const due = this.due(performance.now());
    // While the database is away, the next poll makes up for this one.
    await this.poll(due.filter((queue) => queue.pollIsDue())).catch(() => undefined);
    for (const queue of due) {
      queue.pauseMs = Math.min(queue.pauseMs * 1.5, LONGEST_PAUSE_MS);
      // Moves to the end of the map: otherwise the first 500 queues would be polled for ever.
      if (this.dueAt.delete(queue)) this.dueAt.set(queue, performance.now() + queue.pauseMs);
    }
    this.isPolling = false;
    this.timerAt = Infinity;
    let next = Infinity;
    for (const at of this.dueAt.values()) next = Math.min(next, at);
    if (next < Infinity) this.schedule(next);
  }

  /** Includes queues that are due within half their pause, so all queues soon share one rhythm. */
  private due(now: number): Queue[] {
    const due: Queue[] = [];
    for (const [queue, at] of this.dueAt) {
      if (at - queue.pauseMs / 2 <= now) due.push(queue);
      if (due.length === QUEUES_PER_POLL) break;
    }
    return due;
  }

  private async poll(due: readonly Queue[]): Promise<void> {
    if (due.length === 0) return;
    const settings = await this.queues.getAll(due.map(({ queueName }) => queueName));
    const open = new Map<number, Queue>();
    for (const queue of due) {
      const found = settings.get(queue.queueName);
      if (found === undefined) this.listener.onGone(queue, queueNotFound(queue.queueName));
      else if (!found.paused) open.set(found.id, queue);
    }
    if (open.size === 0) return;
    for (const id of await this.messages.poll([...open.keys()])) {
      const queue = open.get(id);
      if (queue !== undefined) this.listener.onReady(queue);
    }
  }
}
