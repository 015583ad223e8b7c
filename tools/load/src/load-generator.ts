import { setMaxListeners } from 'node:events';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

/** How calls follow each other. */
export type Pace = ClosedPace | OpenPace;

/** A closed loop: each worker begins its next call when the one before has ended. */
export interface ClosedPace {
  workers: number;
  /** Checked right before each call. While it is false, workers wait for `wake`. */
  mayCall?: () => boolean;
}

/** A call at each of evenly spaced moments, however long the calls before take. */
export interface OpenPace {
  perSecond: number;
  /** With so many calls in flight, the next one waits. Its `due` stays. Default: no limit. */
  maxInFlight?: number;
  /** Delays the first call. */
  afterMs?: number;
}

export interface Turn {
  /**
   * Counts from 0. A worker has one call in flight. A paced load has as many workers as it needs.
   */
  worker: number;
  /** Position of this call among all calls, from 0. */
  number: number;
  /** The moment at which the call was due, on the clock of `performance.now()`. */
  due: number;
  /** Aborted when no further call begins. */
  signal: AbortSignal;
}

/** Makes calls at a pace from its construction until it is ended, or until a call fails. */
export class LoadGenerator {
  /**
   * Rejects as soon as a call fails. Resolves when the generator was ended and its last call is
   * over.
   */
  readonly ended: Promise<void>;
  private readonly ending = new AbortController();
  private readonly waiting: (() => void)[] = [];
  private readonly loops: Promise<void>[];
  private calls = 0;

  constructor(
    private readonly pace: Pace,
    private readonly call: (turn: Turn) => Promise<void>,
  ) {
    setMaxListeners(0, this.ending.signal);
    let fail: (error: unknown) => void = () => undefined;
    const failed = new Promise<never>((_, reject) => {
      fail = (error) => {
        this.end();
        reject(error);
      };
    });
    this.loops =
      'perSecond' in pace
        ? [this.callOnTime(pace, fail)]
        : Array.from({ length: pace.workers }, (_, worker) => this.callInALoop(worker).catch(fail));
    this.ended = Promise.race([failed, Promise.all(this.loops).then(() => undefined)]);
    // The caller awaits it later. Until then, a failure is not an unhandled one.
    this.ended.catch(() => undefined);
  }

  /** Lets no further call begin. Calls in flight go on. */
  end(): void {
    this.ending.abort();
    for (const proceed of this.waiting.splice(0)) proceed();
  }

  /** Ends the load and waits for the calls in flight. Rejects with the first failure of a call. */
  async stop(): Promise<void> {
    this.end();
    await Promise.all(this.loops);
    await this.ended;
  }

  /** The caller says that `mayCall` may have become true for one worker. */
  wake(): void {
    if (this.mayCall()) this.waiting.shift()?.();
  }

  private async callInALoop(worker: number): Promise<void> {
    for (;;) {
      while (!this.mayCall()) await new Promise<void>((proceed) => this.waiting.push(proceed));
      if (this.ending.signal.aborted) return;
      // No await between the check and the call: what the call counts, the next check sees.
      await this.call(this.turn(worker, performance.now()));
    }
  }

  private async callOnTime(
    { perSecond, maxInFlight = Infinity, afterMs = 0 }: OpenPace,
    fail: (error: unknown) => void,
  ): Promise<void> {
    const started = performance.now() + afterMs;
    const inFlight = new Set<Promise<void>>();
    const idleWorkers: number[] = [];
    /** Called when a call ends. */
    let goOn: () => void = () => undefined;
    for (;;) {
      const due = started + (this.calls * 1000) / perSecond;
      const waitMs = due - performance.now();
      if (waitMs > 0) await sleep(waitMs);
      if (inFlight.size >= maxInFlight) await new Promise<void>((proceed) => (goOn = proceed));
      if (this.ending.signal.aborted) break;
      const worker = idleWorkers.pop() ?? inFlight.size;
      const calling: Promise<void> = this.call(this.turn(worker, due))
        .catch(fail)
        .finally(() => {
          idleWorkers.push(worker);
          inFlight.delete(calling);
          goOn();
        });
      inFlight.add(calling);
    }
    await Promise.all(inFlight);
  }

  private turn(worker: number, due: number): Turn {
    return { worker, number: this.calls++, due, signal: this.ending.signal };
  }

  private mayCall(): boolean {
    const { pace, ending } = this;
    return ending.signal.aborted || !('mayCall' in pace) || pace.mayCall === undefined || pace.mayCall();
  }
}
