import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Quantiles } from './figures.js';
import { Gate } from './gate.js';
import { ConnectionClosedError } from './http-connection.js';
import { LatencyRecorder } from './latency-recorder.js';
import { Ledger } from './ledger.js';
import type { Load } from './load.js';
import { QueueClient } from './queue-client.js';

const WAIT_SECONDS = 20;
const DRAIN_DEADLINE_MS = 30_000;
/** Name of the latency from the start of the enqueue request to the dequeue answer with its message. */
export const END_TO_END = 'end to end';

export interface PacedShape {
  /** Consumers are dealt to the queues in turn; messages go to the first queue. */
  queues: readonly string[];
  consumers: number;
  /** 0: nothing is enqueued, the consumers just wait. */
  messagesPerSecond: number;
  bodyBytes: number;
}

/** Single messages at a steady rate, whatever the answers take, to consumers that wait in the broker: measures how long a message is on its way. */
export class PacedMessages implements Load {
  readonly ended: Promise<void>;
  private readonly ledger = new Ledger(true);
  private readonly balance = new Gate(() => this.ledger.backlog === 0);
  /** When the enqueue of a message began, by the number in its body. */
  private readonly began = new Map<number, number>();
  private readonly idleProducers: QueueClient[] = [];
  private readonly sending = new Set<Promise<void>>();
  private readonly pacing: Promise<void>;
  private readonly consuming: Promise<unknown>;
  private running = true;
  private consumersRun = true;

  private constructor(
    private readonly url: string,
    private readonly shape: PacedShape,
    private readonly consumers: QueueClient[],
    private readonly latencies: LatencyRecorder,
  ) {
    this.consuming = Promise.all(consumers.map((client, turn) => this.consume(client, turn)));
    this.pacing = this.pace();
    this.ended = Promise.all([this.consuming, this.pacing]).then(() => undefined);
    // Whoever measures awaits it; until then a failure is not an unhandled one.
    this.ended.catch(() => undefined);
  }

  /** Opens the consumers' connections, then begins. */
  static async start(url: string, shape: PacedShape): Promise<PacedMessages> {
    const latencies = new LatencyRecorder();
    const consumers = await Promise.all(
      Array.from({ length: shape.consumers }, (_, turn) =>
        QueueClient.open(url, shape.queues[turn % shape.queues.length] as string, latencies),
      ),
    );
    return new PacedMessages(url, shape, consumers, latencies);
  }

  done(): number {
    return this.ledger.acked;
  }

  takeLatencies(): Record<string, Quantiles> {
    return this.latencies.take();
  }

  async stop(): Promise<void> {
    this.running = false;
    try {
      await this.pacing;
      await Promise.race([this.balance.pass(), this.consuming, sleep(DRAIN_DEADLINE_MS, undefined, { ref: false })]);
    } finally {
      this.consumersRun = false;
      for (const client of [...this.idleProducers, ...this.consumers]) client.close();
    }
    await this.consuming;
    this.ledger.assertBalanced();
  }

  private async pace(): Promise<void> {
    const { messagesPerSecond } = this.shape;
    if (messagesPerSecond === 0) return;
    const started = performance.now();
    let failure: unknown;
    for (let number = 0; this.running && failure === undefined; number += 1) {
      const wait = started + (number * 1000) / messagesPerSecond - performance.now();
      if (wait > 0) await sleep(wait);
      const sent: Promise<void> = this.enqueue(number)
        .catch((error: unknown) => void (failure ??= error))
        .finally(() => this.sending.delete(sent));
      this.sending.add(sent);
    }
    await Promise.all(this.sending);
    if (failure !== undefined) throw failure;
  }

  private async enqueue(number: number): Promise<void> {
    const { queues, bodyBytes } = this.shape;
    const client = this.idleProducers.pop() ?? (await QueueClient.open(this.url, queues[0] as string, this.latencies));
    const messages = [{ body: `${number} `.padEnd(bodyBytes, 'x') }];
    this.began.set(number, performance.now());
    this.ledger.recordEnqueued(await client.enqueue(JSON.stringify({ messages })));
    this.idleProducers.push(client);
    this.balance.wakeOne();
  }

  private async consume(client: QueueClient, turn: number): Promise<void> {
    // Waits that began together would end together, again and again.
    let waitSeconds = 1 + (turn % WAIT_SECONDS);
    while (this.consumersRun) {
      const messages = await client.dequeue({ waitSeconds }).catch((error: unknown) => {
        if (!this.consumersRun && error instanceof ConnectionClosedError) return [];
        throw error;
      });
      waitSeconds = WAIT_SECONDS;
      for (const { body } of messages) this.recordArrival(Number.parseInt(body));
      if (messages.length === 0) continue;
      await client.ack(messages);
      this.ledger.recordAcked(messages);
      this.balance.wakeOne();
    }
  }

  private recordArrival(number: number): void {
    this.latencies.record(END_TO_END, this.began.get(number) ?? Number.NaN);
    this.began.delete(number);
  }
}
