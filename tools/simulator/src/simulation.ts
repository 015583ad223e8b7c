import { randomBytes } from 'node:crypto';
import type { RowmqHttpClient } from '@rowmq/client/core';
import { LoadGenerator } from '@rowmq/load';
import { depthOf, depthSum, gatherEvidence, isEmpty } from './broker-state.js';
import { Consumer } from './consumer.js';
import { Ledger, LedgerFullError } from './ledger.js';
import { Meter, type Depth, type Percentiles, type Sample, type Timed } from './meter.js';
import { Producer } from './producer.js';
import { manyListeners, now, pause, type Run } from './run.js';
import type { SimulatorSettings } from './simulator.config.js';
import { Throttle } from './throttle.js';
import { judge, type Verdict } from './verdict.js';

/** A finished run. */
export interface Result {
  /** Names the run's queues: `sim-<run>-<number>`. */
  run: string;
  settings: SimulatorSettings;
  startedAt: Date;
  samples: Sample[];
  totals: Meter['totals'];
  errors: Record<string, number>;
  latency: Record<Timed, Percentiles>;
  messages: number;
  leases: number;
  verdict: Verdict;
  /** Facts that a reader of the verdict needs. */
  notes: string[];
}

export type Phase = 'producing' | 'draining' | 'judging';

/** Shows the progress of a run. */
export interface Watcher {
  phase(phase: Phase): void;
  sample(sample: Sample): void;
}

const SAMPLE_MS = 1000;
const DRAIN_LOOK_MS = 200;

/**
 * Runs producers and consumers against a broker and judges the outcome.
 *
 * It creates queues of its own. It deletes them at the end, unless a guarantee was broken or the
 * settings keep them. Throws the broker's error if the broker refuses to create them.
 * @param stop ends producing early; the queues are still drained and judged
 */
export async function simulate(
  client: RowmqHttpClient,
  settings: SimulatorSettings,
  watcher: Watcher,
  stop: AbortSignal,
): Promise<Result> {
  const id = randomBytes(4).toString('hex');
  const queues = Array.from({ length: settings.queues }, (_, index) => `sim-${id}-${index + 1}`);
  const run: Run = {
    id,
    client,
    settings,
    queues,
    topic: settings.topic ? `sim-${id}` : undefined,
    ledger: new Ledger(settings.maxMessages),
    meter: new Meter(),
    failure: manyListeners(),
  };
  const ordering = settings.groups > 0 ? 'group' : null;
  for (const queue of queues) await client.putQueue(queue, { leaseSeconds: settings.leaseSeconds, ordering });
  if (run.topic !== undefined) {
    await client.putTopic(run.topic);
    for (const queue of queues) await client.putSubscription(run.topic, queue);
  }
  const simulation = new Simulation(run, watcher);
  const result = await simulation.run(stop);
  if (result.verdict.status !== 'BROKEN' && !settings.keepQueues) {
    for (const queue of queues) await client.deleteQueue(queue, { force: true });
    if (run.topic !== undefined) await client.deleteTopic(run.topic);
  } else result.notes.push(`The queues were kept: ${queues[0]}${queues.length > 1 ? ` to ${queues.at(-1)}` : ''}.`);
  return result;
}

class Simulation {
  readonly #run: Run;
  readonly #watcher: Watcher;
  readonly #samples: Sample[] = [];
  readonly #notes: string[] = [];
  readonly #startedAt = new Date();
  readonly #began = now();
  #depth: Depth | null = null;
  /** Messages enqueued less messages acked, when the depth was last asked for. */
  #balanceThen = 0;

  constructor(run: Run, watcher: Watcher) {
    this.#run = run;
    this.#watcher = watcher;
  }

  async run(stop: AbortSignal): Promise<Result> {
    const { settings, ledger, meter, failure } = this.#run;
    const stopSampling = new AbortController();
    const sampling = this.#sampleUntil(stopSampling.signal);
    const consumers = Array.from({ length: settings.consumers }, (_, index) => new Consumer(this.#run, index));
    const consuming = new LoadGenerator({ workers: consumers.length }, ({ worker, signal }) =>
      (consumers[worker] as Consumer).round(signal),
    );
    consuming.ended.catch((error: unknown) => failure.abort(error));
    try {
      this.#watcher.phase('producing');
      await this.#produce(stop);
      failure.signal.throwIfAborted();
      this.#watcher.phase('draining');
      for (const { faults } of consumers) faults.end();
      if (settings.consumers > 0) await this.#drain(stop);
    } finally {
      await Promise.allSettled([consuming.stop()]);
      await Promise.allSettled(consumers.map((consumer) => consumer.finish()));
      stopSampling.abort();
      await sampling;
    }
    await consuming.stop();
    for (const consumer of consumers) await consumer.finish();
    this.#watcher.phase('judging');
    const verdict = judge(ledger, await gatherEvidence(this.#run, now()));
    return {
      run: this.#run.id,
      settings,
      startedAt: this.#startedAt,
      samples: this.#samples,
      totals: meter.totals,
      errors: Object.fromEntries(meter.errors),
      latency: meter.latency(),
      messages: ledger.messages.length,
      leases: ledger.leaseCount,
      verdict,
      notes: this.#notes,
    };
  }

  async #produce(stop: AbortSignal): Promise<void> {
    const { settings, failure } = this.#run;
    const backlogIsFull = () => settings.maxBacklog > 0 && this.#backlog() >= settings.maxBacklog;
    const throttle = new Throttle(settings.rate, backlogIsFull);
    const producers = Array.from(
      { length: settings.producers },
      (_, index) => new Producer(this.#run, index, throttle),
    );
    let full: LedgerFullError | undefined;
    const producing = new LoadGenerator({ workers: producers.length }, async ({ worker, signal }) => {
      try {
        await (producers[worker] as Producer).round(signal);
      } catch (error) {
        if (!(error instanceof LedgerFullError)) throw error;
        full = error;
        producing.end();
      }
    });
    const allStopped = new AbortController();
    const noteStop = () => allStopped.abort();
    producing.ended.then(noteStop, noteStop);
    const until = AbortSignal.any([stop, failure.signal, ...(settings.producers > 0 ? [allStopped.signal] : [])]);
    await pause(settings.seconds * 1000, until);
    await producing.stop();
    if (full !== undefined) this.#notes.push(full.message);
    if (stop.aborted) this.#notes.push('Producing was stopped early, by request.');
  }

  /**
   * Lets the consumers work until the queues are empty and everything short-lived has expired, or
   * until the time is up.
   */
  async #drain(stop: AbortSignal): Promise<void> {
    const { settings, ledger, failure } = this.#run;
    const deadline = now() + settings.drainSeconds * 1000;
    // A user who stopped the producing wants the verdict. Only another stop, which comes now, ends
    // the draining.
    const giveUp = AbortSignal.any([failure.signal, ...(stop.aborted ? [] : [stop])]);
    while (now() < deadline && !giveUp.aborted) {
      if (now() > ledger.lastExpiryAt && isEmpty(await depthOf(this.#run))) return;
      await pause(DRAIN_LOOK_MS, giveUp);
    }
    const when = giveUp.aborted ? 'when draining was stopped' : `after ${settings.drainSeconds} s of draining`;
    this.#notes.push(`The queues were not empty ${when}; the simulator asked the broker about what is left.`);
  }

  async #sampleUntil(stop: AbortSignal): Promise<void> {
    let before = now();
    for (let next = before + SAMPLE_MS; !stop.aborted; next = Math.max(next + SAMPLE_MS, now())) {
      await pause(next - now(), stop);
      const balance = this.#balance();
      this.#depth = await depthOf(this.#run);
      this.#balanceThen = balance;
      const at = now();
      const sample = this.#run.meter.sample((at - this.#began) / 1000, (at - before) / 1000, this.#depth);
      before = at;
      this.#samples.push(sample);
      this.#watcher.sample(sample);
    }
  }

  /** Approximate backlog on the broker: its own count a second ago, and the changes since. */
  #backlog(): number {
    return depthSum(this.#depth) + this.#balance() - this.#balanceThen;
  }

  #balance(): number {
    return this.#run.meter.totals.enqueued - this.#run.meter.totals.acked;
  }
}
