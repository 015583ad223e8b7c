import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { LoadGenerator, Tally } from '@rowmq/load';
import { type Quantiles, quantiles } from '../harness/figures.js';
import { bodyOf, numberOf } from './bodies.js';
import type { PeerQueue, PeerClient, Plan, Sink } from './client.js';

/** Plans that were made before the statistics were fresh must go first. */
const AFTER_ANALYSE_MS = 1000;
const DRAIN_DEADLINE_MS = 60_000;
const TICK_MS = 20;
/** A steady stretch with a longer backlog is not steady. */
const STEADY_BACKLOG_LIMIT = 5000;

/** Measurements of one stretch on the client's side. */
export interface StretchResult {
  /** In the measured time. */
  messages: number;
  elapsedMs: number;
  messagesPerSecond: number;
  /** Messages completed in each second of it. */
  perSecond: number[];
  /** Steady stretches: from when a message was due until a consumer had it, ms. */
  latency?: Quantiles;
}

/**
 * One stretch from an empty queue to an empty queue. It calls `mark` when the measured time begins
 * and ends. Throws if a message was lost, doubled or changed.
 */
export class Stretch {
  private readonly tally = new Tally<number>();
  private readonly latencies: number[] = [];
  private producing: LoadGenerator | undefined;
  private completed = 0;
  private measuring = false;
  private fail: (error: unknown) => void = () => undefined;
  private readonly failure = new Promise<never>((_, reject) => (this.fail = reject));

  constructor(
    private readonly plan: Plan,
    private readonly mark: (moment: 'begin' | 'end') => void,
  ) {
    // `run` awaits it later. Until then, a failure is not an unhandled one.
    this.failure.catch(() => undefined);
  }

  async run(client: PeerClient): Promise<StretchResult> {
    const queue = await client.openQueue(this.plan);
    const unlessFailed = async <T>(work: Promise<T>): Promise<T> => Promise.race([work, this.failure]);
    await unlessFailed(queue.consume(this.sink()));
    const producing = this.produce(queue);
    await unlessFailed(sleep(this.plan.warmUpSeconds * 1000));
    if (client.analyse !== undefined) {
      await unlessFailed(client.analyse());
      await unlessFailed(sleep(AFTER_ANALYSE_MS));
    }
    const result = await unlessFailed(this.measure());
    await unlessFailed(producing.stop());
    await unlessFailed(this.drain(queue));
    await queue.close();
    this.tally.assertBalanced();
    return result;
  }

  private sink(): Sink {
    return {
      received: (body) => this.receive(body),
      completed: (count) => {
        this.completed += count;
        this.producing?.wake();
      },
      failed: (error) => this.fail(error),
    };
  }

  /**
   * Producers work in closed loops. In a steady stretch, one message is due at each of evenly
   * spaced moments.
   */
  private produce(queue: PeerQueue): LoadGenerator {
    const { kind, batch, producers, messagesPerSecond, outstanding } = this.plan;
    const isSteady = kind === 'steady';
    const mayCall = (): boolean => this.inFlight() + batch <= outstanding;
    const pace = isSteady ? { perSecond: messagesPerSecond } : { workers: producers, mayCall };
    this.producing = new LoadGenerator(pace, async ({ due }) => {
      if (isSteady && this.inFlight() > STEADY_BACKLOG_LIMIT) {
        throw new Error(`cannot keep up with ${messagesPerSecond} messages/s`);
      }
      await queue.enqueue(this.bodies(isSteady ? 1 : batch, due));
    });
    this.producing.ended.catch(this.fail);
    return this.producing;
  }

  /** Messages that were sent and that no consumer has completed. */
  private inFlight(): number {
    return this.tally.sent - this.completed;
  }

  /** The next bodies to send. Each begins with its message's number. */
  private bodies(count: number, due: number): string[] {
    const numbers = Array.from({ length: count }, (_, index) => this.tally.sent + index);
    this.tally.send(numbers, due);
    return numbers.map((number) => bodyOf(number, this.plan.bodyBytes));
  }

  private receive(body: string): void {
    let number: number;
    try {
      number = numberOf(body, this.plan.bodyBytes);
    } catch (error) {
      this.fail(error);
      return;
    }
    const due = this.tally.sentAt(number);
    this.tally.return([number]);
    if (this.measuring && due !== undefined) this.latencies.push(performance.now() - due);
  }

  private async measure(): Promise<StretchResult> {
    this.mark('begin');
    this.measuring = true;
    const begun = performance.now();
    const before = this.completed;
    const perSecond: number[] = [];
    for (let second = 1, last = before; second <= this.plan.seconds; second += 1) {
      await sleep(begun + second * 1000 - performance.now());
      perSecond.push(this.completed - last);
      last = this.completed;
    }
    this.measuring = false;
    const messages = this.completed - before;
    const elapsedMs = performance.now() - begun;
    this.mark('end');
    const result = { messages, elapsedMs, messagesPerSecond: (messages * 1000) / elapsedMs, perSecond };
    return this.plan.kind === 'steady' ? { ...result, latency: quantiles(this.latencies) } : result;
  }

  /** Waits until every message has come and the server has settled it. */
  private async drain(queue: PeerQueue): Promise<void> {
    for (const deadline = Date.now() + DRAIN_DEADLINE_MS; ; await sleep(TICK_MS)) {
      const here = this.inFlight();
      if (here === 0 && (await queue.remaining()) === 0) return;
      if (Date.now() < deadline) continue;
      throw new Error(
        `after ${DRAIN_DEADLINE_MS / 1000} s: ${here} of ${this.tally.sent} messages not completed, ${await queue.remaining()} still on the server`,
      );
    }
  }
}
