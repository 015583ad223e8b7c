import { queueNotFound, type MessageRepository, type QueueRepository } from '@rowmq/store';

/** Pauses between looks at an empty queue: from this, half as long again each time, up to that. The longest bounds how late something that happened elsewhere is noticed. */
export const SHORTEST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 250;
/** Queues in one look. */
const LOOK_QUEUES = 500;

/** A queue that was found empty and whose consumers wait. */
export interface EmptyQueue {
  readonly queueName: string;
  /** Until the next look. Grows with every look. */
  pauseMs: number;
}

/**
 * Looks at empty queues: has something become available that this broker did not hear of? One statement looks at all queues whose turn is now or soon, so that idle queues cost hardly more
 * when they are many.
 */
export class EmptyQueueWatch<Queue extends EmptyQueue> {
  /** When each is to be looked at, by `performance.now()`. */
  private readonly lookAt = new Map<Queue, number>();
  private timer: NodeJS.Timeout | undefined;
  private timerAt = Infinity;
  private isLooking = false;

  constructor(
    private readonly messages: Pick<MessageRepository, 'look'>,
    private readonly queues: Pick<QueueRepository, 'getAll'>,
    private readonly listener: {
      /** Something is ready, or was a moment ago. */
      onReady: (queue: Queue) => void;
      onGone: (queue: Queue, error: Error) => void;
    },
  ) {}

  add(queue: Queue): void {
    const at = performance.now() + queue.pauseMs;
    this.lookAt.set(queue, at);
    this.schedule(at);
  }

  remove(queue: Queue): void {
    this.lookAt.delete(queue);
  }

  close(): void {
    clearTimeout(this.timer);
    this.lookAt.clear();
  }

  private schedule(at: number): void {
    if (this.isLooking || at >= this.timerAt) return;
    clearTimeout(this.timer);
    this.timerAt = at;
    this.timer = setTimeout(() => void this.round(), Math.max(at - performance.now(), 1)).unref();
  }

  private async round(): Promise<void> {
    this.isLooking = true;
    const due = this.due(performance.now());
    // While the database is away, the next look will do.
    await this.look(due).catch(() => undefined);
    for (const queue of due) {
      queue.pauseMs = Math.min(queue.pauseMs * 1.5, LONGEST_PAUSE_MS);
      // To the end of the line: more than one look takes, and the first would be looked at for ever.
      if (this.lookAt.delete(queue)) this.lookAt.set(queue, performance.now() + queue.pauseMs);
    }
    this.isLooking = false;
    this.timerAt = Infinity;
    const next = Math.min(...this.lookAt.values());
    if (next < Infinity) this.schedule(next);
  }

  /** Those whose turn would come within half their pause are looked at with the others, so that all soon keep step. */
  private due(now: number): Queue[] {
    const due: Queue[] = [];
    for (const [queue, at] of this.lookAt) {
      if (at - queue.pauseMs / 2 <= now) due.push(queue);
      if (due.length === LOOK_QUEUES) break;
    }
    return due;
  }

  private async look(due: readonly Queue[]): Promise<void> {
    const settings = await this.queues.getAll(due.map(({ queueName }) => queueName));
    const open = new Map<number, Queue>();
    for (const queue of due) {
      const found = settings.get(queue.queueName);
      if (found === undefined) this.listener.onGone(queue, queueNotFound(queue.queueName));
      else if (!found.paused) open.set(found.id, queue);
    }
    if (open.size === 0) return;
    for (const id of await this.messages.look([...open.keys()])) {
      const queue = open.get(id);
      // Unless it was woken meanwhile.
      if (queue !== undefined && this.lookAt.has(queue)) this.listener.onReady(queue);
    }
  }
}
