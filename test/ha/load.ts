import { setTimeout as sleep } from 'node:timers/promises';
import type { RowmqHttpClient } from '@rowmq/client/core';
import { expect } from 'vitest';
import { openClient } from '../../tools/simulator/src/open-client.js';
import { type Result, simulate } from '../../tools/simulator/src/simulation.js';
import { readSimulatorSettings, type SimulatorSettings } from '../../tools/simulator/src/simulator.config.js';
import { verdictText } from '../../tools/simulator/src/verdict-text.js';
import { eventually } from '../support/wait.js';

/**
 * Modest, for a machine that runs three database servers besides; consumers that vanish and
 * messages that are nacked among it. Leases last as long as a broker retries a claim. The broker
 * undoes a claim whose COMMIT got no answer, unless another consumer has leased the messages
 * since. After a shorter lease nobody could explain the second receive count.
 */
const ARGUMENTS =
  '--producers 4 --consumers 6 --rate 100 --batch 5 --queues 2 --seconds 3600 --drain-seconds 300 --lease-seconds 15 --max-backlog 5000 ' +
  '--crash-rate 0.01 --nack-rate 0.02 --body-bytes 50-500 --max-messages 500000';

const ABANDON_MS = 10_000;

/** Producers and consumers that write every request and answer into a ledger. */
export class Load {
  #requestsInFlight = 0;
  #sent = 0;
  readonly #stop = new AbortController();
  readonly #client: RowmqHttpClient;
  readonly #result: Promise<Result>;

  private constructor(urls: readonly string[], settings: SimulatorSettings) {
    this.#client = openClient(urls, settings);
    const watcher = {
      phase: () => undefined,
      sample: ({ requestsInFlight, counts }: { requestsInFlight: number; counts: { enqueued: number } }) => {
        this.#requestsInFlight = requestsInFlight;
        this.#sent += counts.enqueued;
      },
    };
    this.#result = simulate(this.#client, settings, watcher, this.#stop.signal);
    // judge() awaits it.
    this.#result.catch(() => undefined);
  }

  /** Begins, and waits until messages flow. */
  static async start(urls: readonly string[], seed = 1): Promise<Load> {
    const settings = readSimulatorSettings([...ARGUMENTS.split(' '), '--seed', String(seed)], {});
    const load = new Load(urls, settings);
    await load.flows();
    return load;
  }

  /** The load's requests in flight, as of the last second. */
  get requestsInFlight(): number {
    return this.#requestsInFlight;
  }

  /** Waits until messages are enqueued from here on. */
  async flows(): Promise<void> {
    const before = this.#sent;
    const ended = this.#result.then(
      () => Promise.reject(new Error('the load ended by itself')),
      (error: unknown) => Promise.reject(error as Error),
    );
    await Promise.race([eventually('messages are enqueued', () => this.#sent > before + 100, 60_000), ended]);
  }

  /**
   * Ends the producing, lets the consumers empty the queues, and fails unless they did, and every
   * guarantee was kept.
   */
  async judge(): Promise<Result> {
    this.#stop.abort();
    const result = await this.#result;
    await this.#client.close();
    const { status, fates, guarantees } = result.verdict;
    const told = verdictText(result);
    expect(status, told).toBe('OK');
    // A message that is still there may be stuck for good.
    expect(fates.unaccounted, told).toBe(0);
    expect(result.notes.filter((note) => note.includes('not empty'))).toEqual([]);
    expect(guarantees.find(({ guarantee }) => guarantee === 'Nothing is lost')?.checked).toBeGreaterThan(100);
    return result;
  }

  /** After a test that failed before it could judge. */
  async abandon(): Promise<void> {
    this.#stop.abort();
    await this.#client.close();
    // Without a client it can do nothing but wait until it may give up.
    await Promise.race([this.#result.catch(() => undefined), sleep(ABANDON_MS, undefined, { ref: false })]);
  }
}
