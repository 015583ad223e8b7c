import { LoadGenerator, Tally } from '@rowmq/load';
import type { Quantiles } from './figures.js';
import type { ClosedShape, Load } from './load.js';

/** Calls of one client on one queue. Any worker may make them. */
export interface ClientCalls {
  /** Sends a batch, and returns the ids of its messages. */
  send(bodies: readonly string[]): Promise<string[]>;
  /** Waits for messages, and returns their ids and what removes them. */
  receive(maxMessages: number): Promise<{ ids: string[]; remove: () => Promise<void> }>;
  /** Ends each `receive` under way, which fails. */
  close(): void | Promise<void>;
}

/** Batches for each consumer at which producers pause. */
const BACKLOG_BATCHES = 20;

/**
 * Closed producers and consumers that share one client, as the workers of a process do. Every
 * message is sent, received and removed.
 */
export class CallLoad implements Load {
  readonly ended: Promise<void>;
  readonly isIdle = false;
  private readonly tally = new Tally<string>();
  private readonly producing: LoadGenerator;
  private readonly consuming: LoadGenerator;

  constructor(
    private readonly calls: ClientCalls,
    { producers, consumers, batch, bodyBytes }: ClosedShape,
  ) {
    const { tally } = this;
    const bodies = Array.from({ length: batch }, () => 'x'.repeat(bodyBytes));
    const mayCall = (): boolean => tally.outstanding < BACKLOG_BATCHES * batch * consumers;
    this.producing = new LoadGenerator({ workers: producers, mayCall }, async () => {
      tally.send(await calls.send(bodies));
    });
    this.consuming = new LoadGenerator({ workers: consumers }, async ({ signal }) => {
      const received = await calls.receive(batch).catch((error: unknown) => {
        if (signal.aborted) return undefined;
        throw error;
      });
      if (received === undefined || received.ids.length === 0) return;
      await received.remove();
      tally.return(received.ids);
      this.producing.wake();
    });
    this.ended = Promise.race([this.producing.ended, this.consuming.ended]);
    this.ended.catch(() => undefined);
  }

  done(): number {
    return this.tally.returned;
  }

  takeLatencies(): Record<string, Quantiles> {
    return {};
  }

  async stop(): Promise<void> {
    await this.producing.stop();
    await Promise.race([this.tally.allReturned(), this.consuming.ended]);
    this.consuming.end();
    await this.calls.close();
    await this.consuming.stop();
    this.tally.assertBalanced();
  }
}
