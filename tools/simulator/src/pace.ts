import { now, pause } from './run.js';

const LOOK_AGAIN_MS = 25;

/** How fast the producers together may go: at most so many messages a second, and only while the backlog is small enough. */
export class Pace {
  readonly #messagesPerSecond: number | undefined;
  readonly #backlogIsFull: () => boolean;
  #nextAt = 0;

  constructor(messagesPerSecond: number | undefined, backlogIsFull: () => boolean) {
    this.#messagesPerSecond = messagesPerSecond;
    this.#backlogIsFull = backlogIsFull;
  }

  /** Returns when the next `count` messages may be sent, or at `stop`. */
  async next(count: number, stop: AbortSignal): Promise<void> {
    if (this.#messagesPerSecond !== undefined) {
      const at = Math.max(this.#nextAt, now());
      this.#nextAt = at + (count / this.#messagesPerSecond) * 1000;
      if (at > now()) await pause(at - now(), stop);
    }
    while (!stop.aborted && this.#backlogIsFull()) await pause(LOOK_AGAIN_MS, stop);
  }
}
