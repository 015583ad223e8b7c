import { LoadGenerator } from '@rowmq/load';
import type { WorkerCounts, StretchKind } from './peer.js';

/** One stretch of load. */
export interface Plan extends WorkerCounts {
  kind: StretchKind;
  /** A name that no stretch before had. */
  queue: string;
  /** Messages of a producer's call, and of a consumer's fetch or prefetch. */
  batch: number;
  /** Before anything counts. */
  warmUpSeconds: number;
  seconds: number;
  bodyBytes: number;
  /** Messages sent and not yet completed, at most: the same for every peer. */
  outstanding: number;
  /** Of a steady stretch. */
  messagesPerSecond: number;
}

/** Where consumers report to. */
export interface Sink {
  /** A message was handed out. */
  received(body: string): void;
  /** So many messages are done: settled at the server, or on the way there where the protocol has no answer to that. */
  completed(count: number): void;
  /** Ends the stretch. */
  failed(error: unknown): void;
}

/** A queue under load. */
export interface PeerQueue {
  /** Resolves when the messages are stored durably. Called by so many producers at a time as the plan says. */
  enqueue(bodies: string[]): Promise<void>;
  /** Starts the consumers; they go on until `close`. */
  consume(sink: Sink): Promise<void>;
  /** Messages the server still has to hand out or to settle. */
  remaining(): Promise<number>;
  /** Stops the consumers, and removes what can be removed. */
  close(): Promise<void>;
}

/** A peer's client library at work: in the process that is measured as the client. */
export interface PeerClient {
  connect(address: string, options: Readonly<Record<string, string | number>>): Promise<void>;
  openQueue(plan: Plan): Promise<PeerQueue>;
  /** Brings the optimizer's statistics up to date; called under load, after the warm-up. */
  analyse?(): Promise<void>;
  close(): Promise<void>;
}

/** Consumers that ask for messages: each asks, hands them on, settles them, and asks again. */
export class PullConsumers {
  private running = true;
  private readonly rounds: LoadGenerator;

  /**
   * @param round one fetch and its settling. It returns the number of messages. Where the server does
   * not wait for messages, the round pauses by itself.
   */
  constructor(consumers: number, sink: Sink, round: (consumer: number) => Promise<number>) {
    this.rounds = new LoadGenerator({ workers: consumers }, async ({ worker }) => sink.completed(await round(worker)));
    this.rounds.ended.catch((error: unknown) => {
      if (this.running) sink.failed(error);
    });
  }

  /** Resolves when the last round is over. A round that fails meanwhile is no fault: its connection was closed. */
  async stop(): Promise<void> {
    this.running = false;
    await Promise.allSettled([this.rounds.stop()]);
  }
}
