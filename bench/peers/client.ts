import type { Hands, StretchKind } from './peer.js';

/** One stretch of load. */
export interface Plan extends Hands {
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
export interface Lane {
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
  openLane(plan: Plan): Promise<Lane>;
  /** Brings the optimizer's statistics up to date; called under load, after the warm-up. */
  analyse?(): Promise<void>;
  close(): Promise<void>;
}

/** Consumers that ask for messages: each asks, hands them on, settles them, and asks again. */
export class PullConsumers {
  private running = true;
  private readonly loops: Promise<void>[] = [];

  /** @param round one fetch and its settling; returns how many messages there were. Where the server does not wait for some, it pauses itself. */
  constructor(consumers: number, sink: Sink, round: (consumer: number) => Promise<number>) {
    for (let consumer = 0; consumer < consumers; consumer += 1) {
      this.loops.push(this.loop(consumer, sink, round));
    }
  }

  /** Resolves when the last round is over. */
  async stop(): Promise<void> {
    this.running = false;
    await Promise.all(this.loops);
  }

  private async loop(consumer: number, sink: Sink, round: (consumer: number) => Promise<number>): Promise<void> {
    try {
      while (this.running) sink.completed(await round(consumer));
    } catch (error) {
      if (this.running) sink.failed(error);
    }
  }
}
