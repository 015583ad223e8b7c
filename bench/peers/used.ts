import { setTimeout as sleep } from 'node:timers/promises';
import { LoadGenerator, Tally } from '@rowmq/load';
import { bodyOf, numberOf } from './bodies.js';
import type { PeerQueue, Plan } from './client.js';

const DRAIN_DEADLINE_MS = 60_000;
const TICK_MS = 20;

/** The callers of a `used` stretch, in a process of their own. Each sends one message a call. */
export class Callers {
  private readonly calling: LoadGenerator;
  private sent = 0;
  private completed = 0;
  private failure: unknown;

  constructor(queue: PeerQueue, { producers, bodyBytes, outstanding }: Plan) {
    const mayCall = (): boolean => this.sent - this.completed < outstanding;
    this.calling = new LoadGenerator({ workers: producers, mayCall }, async () => {
      const number = this.sent;
      this.sent += 1;
      await queue.enqueue([bodyOf(number, bodyBytes)]);
    });
    this.calling.ended.catch((error: unknown) => (this.failure = error));
  }

  /** Says how many messages the handlers are done with. Throws if a call has failed. */
  progress(completed: number): void {
    if (this.failure !== undefined) throw this.failure;
    const more = completed - this.completed;
    this.completed = completed;
    for (let woken = 0; woken < more; woken += 1) this.calling.wake();
  }

  /** Resolves after the last call, with the number of messages that were sent. */
  async stop(): Promise<number> {
    await this.calling.stop();
    return this.sent;
  }
}

/** The handlers of a `used` stretch, in a process of their own. They do nothing with a message. */
export class Handlers {
  private readonly tally = new Tally<number>();
  private completed = 0;
  private failure: unknown;

  private constructor(
    private readonly queue: PeerQueue,
    private readonly bodyBytes: number,
  ) {}

  static async start(queue: PeerQueue, { bodyBytes }: Plan): Promise<Handlers> {
    const handlers = new Handlers(queue, bodyBytes);
    await queue.consume({
      received: (body) => handlers.receive(body),
      completed: (count) => void (handlers.completed += count),
      failed: (error) => void (handlers.failure ??= error),
    });
    return handlers;
  }

  /** Messages that they are done with. Throws if a handler has failed. */
  done(): number {
    if (this.failure !== undefined) throw this.failure;
    return this.completed;
  }

  /**
   * Waits until every message that was sent has come, and the server has settled it. Then it stops
   * the handlers. Throws if a message was lost, doubled or changed.
   */
  async finish(sent: number): Promise<void> {
    for (const deadline = Date.now() + DRAIN_DEADLINE_MS; ; await sleep(TICK_MS)) {
      if (this.done() >= sent && (await this.queue.remaining()) === 0) break;
      if (Date.now() > deadline) {
        throw new Error(
          `after ${DRAIN_DEADLINE_MS / 1000} s: ${this.done()} of ${sent} messages completed, ${await this.queue.remaining()} still on the server`,
        );
      }
    }
    await this.queue.close();
    this.tally.send(Array.from({ length: sent }, (_, number) => number));
    this.tally.assertBalanced();
  }

  private receive(body: string): void {
    try {
      this.tally.return([numberOf(body, this.bodyBytes)]);
    } catch (error) {
      this.failure ??= error;
    }
  }
}
