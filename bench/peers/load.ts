import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Quantiles, quantiles } from '../harness/figures.js';
import type { Lane, PeerClient, Plan, Sink } from './client.js';
import { Ledger } from './ledger.js';

/** After the statistics are fresh, plans that were made before must go first. */
const AFTER_ANALYSE_MS = 1000;
const DRAIN_DEADLINE_MS = 60_000;
const TICK_MS = 20;
/** A steady stretch that falls this far behind is not steady. */
const STEADY_BACKLOG_LIMIT = 5000;

/** What one stretch measured on the client's side. */
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

/** Keeps at most so many messages between the producers' hands and their completion. */
class Outstanding {
  private readonly waiting: { count: number; proceed: () => void }[] = [];

  constructor(private free: number) {}

  async take(count: number): Promise<void> {
    if (this.waiting.length === 0 && this.free >= count) {
      this.free -= count;
      return;
    }
    await new Promise<void>((proceed) => this.waiting.push({ count, proceed }));
  }

  give(count: number): void {
    this.free += count;
    for (let next = this.waiting[0]; next !== undefined && this.free >= next.count; next = this.waiting[0]) {
      this.free -= next.count;
      this.waiting.shift();
      next.proceed();
    }
  }
}

/** One stretch from an empty queue to an empty queue. `mark` is called when the measured time begins and ends. Throws if a message was lost, doubled or changed. */
export class Stretch {
  private readonly ledger: Ledger;
  private readonly outstanding: Outstanding;
  private readonly latencies: number[] = [];
  private completed = 0;
  private producing = true;
  private measuring = false;
  private fail: (error: unknown) => void = () => undefined;
  private readonly failure = new Promise<never>((_, reject) => (this.fail = reject));

  constructor(
    private readonly plan: Plan,
    private readonly mark: (moment: 'begin' | 'end') => void,
  ) {
    this.ledger = new Ledger(plan.bodyBytes);
    this.outstanding = new Outstanding(plan.outstanding);
    // Whoever races with it sees it; here it only must not end the process.
    this.failure.catch(() => undefined);
  }

  async run(client: PeerClient): Promise<StretchResult> {
    const lane = await client.openLane(this.plan);
    const unlessFailed = async <T>(work: Promise<T>): Promise<T> => Promise.race([work, this.failure]);
    await unlessFailed(lane.consume(this.sink()));
    const producers = this.plan.kind === 'steady' ? [this.produceSteadily(lane)] : this.produceInLoops(lane);
    for (const producer of producers) producer.catch(this.fail);
    await unlessFailed(sleep(this.plan.warmUpSeconds * 1000));
    if (client.analyse !== undefined) {
      await unlessFailed(client.analyse());
      await unlessFailed(sleep(AFTER_ANALYSE_MS));
    }
    const result = await unlessFailed(this.measure());
    this.producing = false;
    await unlessFailed(Promise.all(producers));
    await unlessFailed(this.drain(lane));
    await lane.close();
    this.ledger.verify();
    return result;
  }

  private sink(): Sink {
    return {
      received: (body) => {
        const due = this.ledger.receive(body);
        if (this.measuring) this.latencies.push(performance.now() - due);
      },
      completed: (count) => {
        this.completed += count;
        this.outstanding.give(count);
      },
      failed: (error) => this.fail(error),
    };
  }

  private produceInLoops(lane: Lane): Promise<void>[] {
    return Array.from({ length: this.plan.producers }, async () => {
      while (this.producing) {
        await this.outstanding.take(this.plan.batch);
        await lane.enqueue(this.ledger.bodies(this.plan.batch));
      }
    });
  }

  /** One message at each of evenly spaced moments, whatever became of those before. */
  private async produceSteadily(lane: Lane): Promise<void> {
    const started = performance.now();
    const underWay = new Set<Promise<void>>();
    for (let tick = 0; this.producing; tick += 1) {
      const due = started + (tick * 1000) / this.plan.messagesPerSecond;
      const wait = due - performance.now();
      if (wait > 0) await sleep(wait);
      if (this.ledger.sent - this.completed > STEADY_BACKLOG_LIMIT) {
        throw new Error(`cannot keep up with ${this.plan.messagesPerSecond} messages/s`);
      }
      const sending: Promise<void> = lane
        .enqueue(this.ledger.bodies(1, due))
        .catch(this.fail)
        .finally(() => underWay.delete(sending));
      underWay.add(sending);
    }
    await Promise.all(underWay);
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

  /** Until every message has come and the server has settled it. */
  private async drain(lane: Lane): Promise<void> {
    for (const deadline = Date.now() + DRAIN_DEADLINE_MS; ; await sleep(TICK_MS)) {
      const here = this.ledger.sent - this.completed;
      if (here === 0 && (await lane.remaining()) === 0) return;
      if (Date.now() < deadline) continue;
      throw new Error(
        `after ${DRAIN_DEADLINE_MS / 1000} s: ${here} of ${this.ledger.sent} messages not completed, ${await lane.remaining()} still on the server`,
      );
    }
  }
}
