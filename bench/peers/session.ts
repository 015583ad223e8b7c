import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Plan } from './client.js';
import { ClientProcess } from './client-process.js';
import { cpuTimes } from './cpu.js';
import type { StretchResult } from './load.js';
import type { Peer, PeerServer, StretchKind } from './peer.js';

const STEADY_RATE = 200;
/** Between two reports of the handlers' progress to the callers. */
const PROGRESS_MS = 10;

/** The differences between the kinds of stretches. They are the same for all peers. */
const LOADS: Record<StretchKind, { batch: number; outstanding: number }> = {
  batch: { batch: 100, outstanding: 4000 },
  single: { batch: 1, outstanding: 1000 },
  // A consumer that fetches takes up to ten of the messages that are there.
  steady: { batch: 10, outstanding: Number.MAX_SAFE_INTEGER },
  used: { batch: 1, outstanding: 1000 },
};

/** Length of a stretch, and size of its messages. */
export interface StretchOptions {
  warmUpSeconds: number;
  seconds: number;
  bodyBytes: number;
}

/** One stretch with its costs. */
export interface Measured extends StretchResult {
  /** CPU time a message, µs, by process: the servers' and `client`. */
  cpuPerMessage: Record<string, number>;
}

/**
 * A peer's server with a client process beside it. The server can be reached at `address` between
 * `open` and `close`. `bench:snapshot` uses that to hold a snapshot while a stretch runs.
 */
export class PeerSession {
  private stretches = 0;

  private constructor(
    private readonly peer: Peer,
    private readonly server: PeerServer,
    private readonly client: ClientProcess,
    private readonly signal?: AbortSignal,
  ) {}

  get version(): string {
    return this.server.version;
  }

  get address(): string {
    return this.server.address;
  }

  /**
   * Starts both. Throws `PeerUnavailableError` if the server is not installed.
   * @param signal ends the work in hand with an error; the caller then calls `abandon`
   */
  static async open(peer: Peer, signal?: AbortSignal): Promise<PeerSession> {
    const server = await peer.start();
    try {
      signal?.throwIfAborted();
      return new PeerSession(peer, server, await ClientProcess.start(peer, server.address, signal), signal);
    } catch (error) {
      await server.stop();
      throw error;
    }
  }

  /** Measures one stretch on a new queue. Throws if a message was lost, doubled or changed. */
  async stretch(kind: StretchKind, options: StretchOptions): Promise<Measured> {
    const hands = this.peer.stretches[kind];
    if (hands === undefined) throw new Error(`${this.peer.name} is not measured in ${kind}`);
    this.stretches += 1;
    const queue = `bench-${kind}-${this.stretches}`;
    const plan: Plan = { kind, queue, ...hands, ...LOADS[kind], ...options, messagesPerSecond: STEADY_RATE };
    return kind === 'used' ? this.inTwoProcesses(plan) : this.inOneProcess(plan);
  }

  private async inOneProcess(plan: Plan): Promise<Measured> {
    const pids = { ...this.server.pids, client: this.client.pid };
    const readings: Promise<Record<string, number>>[] = [];
    const { result } = await this.client.ask({ ask: 'stretch', plan }, () => readings.push(cpuTimes(pids)));
    const [before, after] = await Promise.all(readings);
    if (result === undefined || before === undefined || after === undefined) throw new Error('the client said nothing');
    return { ...result, cpuPerMessage: perMessage(before, after, result.messages) };
  }

  /** The callers get a process of their own; the handlers work in the session's client. */
  private async inTwoProcesses(plan: Plan): Promise<Measured> {
    const handlers = this.client;
    const callers = await ClientProcess.start(this.peer, this.server.address, this.signal);
    try {
      await handlers.ask({ ask: 'handle', plan });
      await callers.ask({ ask: 'call', plan });
      const measured = await this.measure(callers, handlers, plan);
      const { count: sent = Number.NaN } = await callers.ask({ ask: 'stop' });
      await handlers.ask({ ask: 'finish', sent });
      await callers.close();
      return measured;
    } catch (error) {
      await callers.kill();
      throw error;
    }
  }

  private async measure(callers: ClientProcess, handlers: ClientProcess, plan: Plan): Promise<Measured> {
    const pids = { ...this.server.pids, callers: callers.pid, handlers: handlers.pid };
    const read = async (): Promise<{ at: number; done: number }> => {
      const { count: done = Number.NaN } = await handlers.ask({ ask: 'count' });
      return { at: performance.now(), done };
    };
    /** The callers learn how many messages are done, so that the backlog stays bounded. */
    const workUntil = async (moment: number): Promise<{ at: number; done: number }> => {
      for (;;) {
        const now = await read();
        await callers.ask({ ask: 'progress', completed: now.done });
        if (now.at >= moment) return now;
        await sleep(Math.min(PROGRESS_MS, moment - now.at));
      }
    };
    const begin = await workUntil(performance.now() + plan.warmUpSeconds * 1000);
    const before = await cpuTimes(pids);
    const perSecond: number[] = [];
    let last = begin;
    for (let second = 1; second <= plan.seconds; second += 1) {
      const now = await workUntil(begin.at + second * 1000);
      perSecond.push(now.done - last.done);
      last = now;
    }
    const after = await cpuTimes(pids);
    const [messages, elapsedMs] = [last.done - begin.done, last.at - begin.at];
    const { callers: calling = 0, handlers: handling = 0, ...servers } = perMessage(before, after, messages);
    return {
      messages,
      elapsedMs,
      messagesPerSecond: (messages * 1000) / elapsedMs,
      perSecond,
      cpuPerMessage: { ...servers, client: calling + handling },
    };
  }

  /** Stops both in order. */
  async close(): Promise<void> {
    try {
      await this.client.close();
    } finally {
      await this.server.stop();
    }
  }

  /** Stops both at once. */
  async abandon(): Promise<void> {
    await this.client.kill();
    await this.server.stop();
  }
}

function perMessage(
  before: Record<string, number>,
  after: Record<string, number>,
  messages: number,
): Record<string, number> {
  return Object.fromEntries(
    Object.keys(before).map((name) => [name, ((after[name] ?? 0) - (before[name] ?? 0)) / messages]),
  );
}
