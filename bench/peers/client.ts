import { LoadGenerator } from '@rowmq/load';
import type { WorkerCounts, StretchKind } from './peer.js';

/** One stretch of load. */
export interface Plan extends WorkerCounts {
  kind: StretchKind;
  /** A new name for each stretch. */
  queue: string;
  /** Messages of a producer's call, and of a consumer's fetch or prefetch. */
  batch: number;
  /** Before anything counts. */
  warmUpSeconds: number;
  seconds: number;
  bodyBytes: number;
  /** Bound on the messages that were sent and are not completed: the same for every peer. */
  outstanding: number;
  /** Rate of a steady stretch. */
  messagesPerSecond: number;
}

/** Receives the reports of consumers. */
export interface Sink {
  /** A message was handed out. */
  received(body: string): void;
  /**
   * The consumer is done with so many messages. The server has settled them or, where its protocol
   * has no answer to that, they are on their way there.
   */
  completed(count: number): void;
  /** Ends the stretch. */
  failed(error: unknown): void;
}

/** A queue under load. */
export interface PeerQueue {
  /** Resolves when the messages are durable. The plan says how many producers call it at a time. */
  enqueue(bodies: string[]): Promise<void>;
  /** Starts the consumers. They go on until `close`. */
  consume(sink: Sink): Promise<void>;
  /** Messages that the server still has to hand out or to settle. */
  remaining(): Promise<number>;
  /** Stops the consumers. Removes the queue if the peer can. */
  close(): Promise<void>;
}

/** A peer's client library, in the process whose CPU counts as the client's. */
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
   * @param round one fetch and its settling. It returns the number of messages. If the server does
   * not wait for messages, the round pauses by itself.
   */
  constructor(consumers: number, sink: Sink, round: (consumer: number) => Promise<number>) {
    this.rounds = new LoadGenerator({ workers: consumers }, async ({ worker }) => sink.completed(await round(worker)));
    this.rounds.ended.catch((error: unknown) => {
      if (this.running) sink.failed(error);
    });
  }

  /**
   * Resolves when the last round is over. A round that fails meanwhile is no fault, because its
   * connection was closed.
   */
  async stop(): Promise<void> {
    this.running = false;
    await Promise.allSettled([this.rounds.stop()]);
  }
}
