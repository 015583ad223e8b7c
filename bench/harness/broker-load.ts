import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DequeueRequest, LeasedMessage } from '@rowmq/contract';
import { LoadGenerator, type Pace, Tally, type Turn } from '@rowmq/load';
import type { Quantiles } from './figures.js';
import { ConnectionClosedError } from './http-connection.js';
import { LatencyRecorder } from './latency-recorder.js';
import type { Side, Load, QueueLoadShape } from './load.js';
import { QueueClient, type QueueClientOptions, type Route, type Target } from './queue-client.js';

/**
 * Names the latency from the start of an enqueue request to the dequeue answer with its message.
 */
export const END_TO_END = 'end to end';

const BACKLOG_BATCHES = 20;
const WAIT_SECONDS = 20;
/**
 * Each paced call in flight has a connection. A broker that stalls would otherwise meet thousands
 * of new ones at once, and the system resets some of them.
 */
const MOST_PACED_CALLS = 500;
/** When a load stops, consumers must take what is left within this time. */
const DRAIN_DEADLINE_MS = 120_000;

/**
 * - `lifecycle`: enqueues, dequeues and acks every message.
 * - `produce`: leaves the messages behind, in the tally that a `drain` then empties.
 * - `steady`: works above messages that are already there, and may take those.
 */
export type Mode = 'lifecycle' | 'produce' | 'drain' | 'steady';

/** The brokers that each side calls. Workers are dealt to them in turn. */
export interface Routes {
  producers: readonly Route[];
  consumers: readonly Route[];
}

/** A message's id or, where producers are paced, the number in its body. */
type Key = string | number;

/**
 * Producers and consumers of a broker, closed or paced. Each worker has a connection of its own and
 * one call in flight.
 *
 * In a closed load, producers pause while the backlog is at its bound, and consumers wait in the
 * broker. The rate is therefore that of whole lifecycles. Above a backlog, consumers could run
 * ahead of the producers for ever, so a `steady` load asks for no more than it has put in.
 */
export class BrokerLoad implements Load {
  readonly ended: Promise<void>;
  readonly isIdle: boolean;
  private readonly producing: LoadGenerator;
  private readonly consuming: LoadGenerator;
  private readonly requests: readonly string[];
  /** Messages that consumers have asked for, less those that they did not get. */
  private asked = 0;

  private constructor(
    private readonly shape: QueueLoadShape,
    private readonly mode: Mode,
    readonly tally: Tally<Key>,
    private readonly clients: Record<'producers' | 'consumers', Clients>,
    private readonly latencies: LatencyRecorder,
  ) {
    const { batch, backlogBatches = BACKLOG_BATCHES } = shape;
    const { producers, consumers } = sidesOf(shape, mode);
    const bound = backlogBatches * batch * (typeof consumers === 'number' ? consumers : 0);
    const hasRoom = (): boolean => mode === 'produce' || tally.outstanding < bound;
    const hasStock = (): boolean => mode !== 'steady' || tally.sent - this.asked >= batch;
    this.isIdle = mode === 'lifecycle' && producers === 0;
    this.requests = closedRequests(shape);
    this.producing = new LoadGenerator(paceOf(producers, hasRoom), (turn) => this.produce(turn));
    // Half a period after the producers, where both are paced.
    this.consuming = new LoadGenerator(paceOf(consumers, hasStock, 0.5), (turn) => this.consume(turn));
    const working = Promise.all([this.producing.ended, this.consuming.ended]);
    this.ended = Promise.race([working, ...(mode === 'drain' ? [tally.allReturned()] : [])]).then(() => undefined);
    // The measurement awaits it later. Until then, a failure is not an unhandled one.
    this.ended.catch(() => undefined);
  }

  /**
   * Opens the connections of closed workers, then begins.
   * @param broker the one broker of all workers, or the brokers of each side
   * @param produced tally of the load that a `drain` empties
   */
  static async start(
    broker: string | Routes,
    shape: QueueLoadShape,
    mode: Mode = 'lifecycle',
    produced = new Tally<Key>(mode !== 'steady'),
  ): Promise<BrokerLoad> {
    const latencies = new LatencyRecorder();
    const { producers, consumers } = sidesOf(shape, mode);
    const routes = typeof broker === 'string' ? { producers: [broker], consumers: [broker] } : broker;
    const targets: readonly Target[] = shape.topic === undefined ? shape.queues : [{ topic: shape.topic }];
    const { idempotencyKeys, apiKey } = shape;
    const clients = {
      producers: await Clients.open(routes.producers, targets, producers, { latencies, idempotencyKeys, apiKey }),
      consumers: await Clients.open(routes.consumers, shape.queues, consumers, { latencies, apiKey }),
    };
    return new BrokerLoad(shape, mode, produced, clients, latencies);
  }

  done(): number {
    return this.mode === 'produce' ? this.tally.sent : this.tally.returned;
  }

  takeLatencies(): Record<string, Quantiles> {
    return this.latencies.take();
  }

  async stop(): Promise<void> {
    const { mode, producing, consuming, tally, clients } = this;
    const drains = mode === 'lifecycle' || mode === 'drain';
    try {
      await producing.stop();
      const deadline = sleep(DRAIN_DEADLINE_MS, undefined, { ref: false });
      if (drains) await Promise.race([tally.allReturned(), consuming.ended, deadline]);
      // Steady consumers never wait for long. Others wait in the broker for messages that will not
      // come.
      if (mode === 'steady') await consuming.stop();
    } finally {
      consuming.end();
      clients.producers.close();
      clients.consumers.close();
    }
    await consuming.stop();
    if (drains) tally.assertBalanced();
  }

  private async produce(turn: Turn): Promise<void> {
    const client = await this.clients.producers.of(turn.worker);
    if (isPaced(this.shape.producers)) {
      const { request, numbers } = this.numberedRequest(turn.number);
      this.tally.send(numbers, performance.now());
      await client.enqueue(request, this.since(turn));
    } else {
      this.tally.send(await client.enqueue(this.requests[turn.number % this.requests.length] as string));
    }
    this.consuming.wake();
  }

  private async consume(turn: Turn): Promise<void> {
    const { batch } = this.shape;
    this.asked += batch;
    const messages = await this.dequeue(turn);
    this.asked -= batch - messages.length;
    if (messages.length === 0) return;
    const keys = messages.map(({ id, body }) => (isPaced(this.shape.producers) ? Number.parseInt(body) : id));
    for (const key of keys) {
      const sentAt = this.tally.sentAt(key);
      if (isPaced(this.shape.producers) && sentAt !== undefined) this.latencies.record(END_TO_END, sentAt);
    }
    const client = await this.clients.consumers.of(turn.worker);
    await client.ack(messages);
    this.tally.return(keys);
    this.producing.wake();
  }

  private async dequeue(turn: Turn): Promise<LeasedMessage[]> {
    const client = await this.clients.consumers.of(turn.worker);
    try {
      return await client.dequeue(this.dequeueRequest(turn), this.since(turn));
    } catch (error) {
      if (turn.signal.aborted && error instanceof ConnectionClosedError) return [];
      throw error;
    }
  }

  private dequeueRequest({ worker, number }: Turn): DequeueRequest {
    const { batch, consumers } = this.shape;
    // One more than comes in, to catch up with what a stall left.
    if (isPaced(consumers)) return { maxMessages: batch + 1 };
    // Waits that began together would end together, again and again. Therefore the first wait of
    // each worker has another length.
    return { maxMessages: batch, waitSeconds: number === worker ? 1 + (worker % WAIT_SECONDS) : WAIT_SECONDS };
  }

  /** From when the latency of a call counts. */
  private since({ due }: Turn): number {
    return this.shape.countsFromDue === true ? due : performance.now();
  }

  /** An enqueue request whose bodies begin with the numbers of their messages. */
  private numberedRequest(requestNumber: number): { request: string; numbers: number[] } {
    const { batch, bodyBytes } = this.shape;
    const numbers = Array.from({ length: batch }, (_, index) => requestNumber * batch + index);
    const messages = numbers.map((number) => ({ body: `${number} `.padEnd(bodyBytes, 'x') }));
    return { request: JSON.stringify({ messages }), numbers };
  }
}

/** The clients of one side's workers, each on one target. */
class Clients {
  private constructor(
    private readonly openOne: (worker: number) => Promise<QueueClient>,
    private readonly clients: QueueClient[] = [],
  ) {}

  static async open(
    routes: readonly Route[],
    targets: readonly Target[],
    side: Side,
    options: QueueClientOptions,
  ): Promise<Clients> {
    const openOne = async (worker: number): Promise<QueueClient> => {
      const target = targets[isPaced(side) ? 0 : worker % targets.length] as Target;
      return QueueClient.open(routes[worker % routes.length] as Route, target, options);
    };
    const workers = Array.from({ length: isPaced(side) ? 0 : side }, (_, worker) => worker);
    return new Clients(openOne, await Promise.all(workers.map(openOne)));
  }

  /** A paced load's workers get their clients when they first need it. */
  async of(worker: number): Promise<QueueClient> {
    return (this.clients[worker] ??= await this.openOne(worker));
  }

  /** Closes at once; a call in flight fails with `ConnectionClosedError`. */
  close(): void {
    for (const client of this.clients) client.close();
  }
}

function isPaced(side: Side): side is { perSecond: number } {
  return typeof side !== 'number';
}

/** The two sides of a load in a mode. */
function sidesOf({ producers, consumers }: QueueLoadShape, mode: Mode): { producers: Side; consumers: Side } {
  return { producers: mode === 'drain' ? 0 : producers, consumers: mode === 'produce' ? 0 : consumers };
}

function paceOf(side: Side, mayCall: () => boolean, shift = 0): Pace {
  if (!isPaced(side)) return { workers: side, mayCall };
  return { ...side, maxInFlight: MOST_PACED_CALLS, afterMs: (shift * 1000) / side.perSecond };
}

/**
 * A closed load repeats its requests, so it makes each once: one request for each first priority,
 * or so many that they name every group.
 */
function closedRequests({ batch, bodyBytes, priorities, groups }: QueueLoadShape): string[] {
  const body = 'x'.repeat(bodyBytes);
  if (groups !== undefined) {
    return Array.from({ length: Math.ceil(groups / batch) }, (_, nth) =>
      JSON.stringify({
        messages: Array.from({ length: batch }, (__, index) => ({ body, groupId: `g${nth * batch + index}` })),
      }),
    );
  }
  return Array.from({ length: priorities ?? 1 }, (_, first) => {
    const messages = Array.from({ length: batch }, (__, index) =>
      priorities === undefined ? { body } : { body, priority: (first + index) % priorities },
    );
    return JSON.stringify({ messages });
  });
}
