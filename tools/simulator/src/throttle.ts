import { now, pause } from './run.js';

const POLL_MS = 25;

/**
 * Holds producers back. Together they send so many messages a second at most, and none while the
 * backlog is full.
 */
export class Throttle {
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
    while (!stop.aborted && this.#backlogIsFull()) await pause(POLL_MS, stop);
  }
}
