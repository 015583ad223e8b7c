import { setTimeout as sleep } from 'node:timers/promises';
import type { Quantiles } from './figures.js';
import { Gate } from './gate.js';
import { ConnectionClosedError } from './http-connection.js';
import { LatencyRecorder } from './latency-recorder.js';
import { Ledger } from './ledger.js';
import type { LifecycleShape, Load } from './load.js';
import { enqueueRequest, QueueClient } from './queue-client.js';

const BACKLOG_BATCHES = 20;
const WAIT_SECONDS = 20;
/** For the consumers to take what is left when a load ends. */
const DRAIN_DEADLINE_MS = 120_000;

/** What a load does. `produce` leaves the messages behind, in the ledger that `drain` then empties; `steady` works above messages that are already there. */
export type Mode = 'lifecycle' | 'produce' | 'drain' | 'steady';

interface Clients {
  producers: QueueClient[];
  consumers: QueueClient[];
  /** What all of them record in. */
  latencies: LatencyRecorder;
}

/**
 * A closed loop of producers and consumers, each with a connection of its own and one call under way. Producers pause while the backlog is at its bound, and consumers wait in
 * the broker, so the rate is that of whole lifecycles.
 *
 * Where a backlog lies in the queue, consumers could run ahead of the producers for ever: a `steady` load asks for no more than it has put in.
 */
export class Lifecycles implements Load {
  readonly ended: Promise<void>;
  private readonly room: Gate;
  private readonly stock: Gate;
  private readonly balance: Gate;
  private readonly producing: Promise<unknown>;
  private readonly consuming: Promise<unknown>;
  private producersRun = true;
  private consumersRun = true;
  /** Of what was enqueued, what consumers have asked for. */
  private asked = 0;

  private constructor(
    private readonly shape: LifecycleShape,
    private readonly mode: Mode,
    readonly ledger: Ledger,
    private readonly clients: Clients,
  ) {
    const bound = (shape.backlogBatches ?? BACKLOG_BATCHES) * shape.consumers * shape.batch;
    this.room = new Gate(() => mode === 'produce' || ledger.backlog < bound || !this.producersRun);
    this.stock = new Gate(() => mode !== 'steady' || this.inStock() >= shape.batch || !this.consumersRun);
    this.balance = new Gate(() => ledger.backlog === 0);
    this.producing = Promise.all(clients.producers.map((client, turn) => this.produce(client, turn)));
    this.consuming = Promise.all(clients.consumers.map((client) => this.consume(client)));
    const working = Promise.all([this.producing, this.consuming]);
    this.ended = Promise.race(mode === 'drain' ? [working, this.balance.pass()] : [working]).then(() => undefined);
    // Whoever measures awaits it; until then a failure is not an unhandled one.
    this.ended.catch(() => undefined);
  }

  /** Opens every connection, then begins. @param produced the ledger of the `produce` load to be drained. */
  static async start(
    url: string,
    shape: LifecycleShape,
    mode: Mode = 'lifecycle',
    produced?: Ledger,
  ): Promise<Lifecycles> {
    const latencies = new LatencyRecorder();
    const open = async (count: number): Promise<QueueClient[]> =>
      Promise.all(
        Array.from({ length: count }, (_, turn) =>
          QueueClient.open(url, shape.queues[turn % shape.queues.length] as string, latencies),
        ),
      );
    const producers = await open(mode === 'drain' ? 0 : shape.producers);
    const consumers = await open(mode === 'produce' ? 0 : shape.consumers);
    return new Lifecycles(shape, mode, produced ?? new Ledger(mode !== 'steady'), { producers, consumers, latencies });
  }

  done(): number {
    return this.mode === 'produce' ? this.ledger.enqueued : this.ledger.acked;
  }

  takeLatencies(): Record<string, Quantiles> {
    return this.clients.latencies.take();
  }

  async stop(): Promise<void> {
    const drains = this.mode === 'lifecycle' || this.mode === 'drain';
    this.producersRun = false;
    this.room.wakeAll();
    try {
      await this.producing;
      const deadline = sleep(DRAIN_DEADLINE_MS, undefined, { ref: false });
      if (drains) await Promise.race([this.balance.pass(), this.consuming, deadline]);
      this.consumersRun = false;
      this.stock.wakeAll();
      // A steady consumer never waits long; any other waits in the broker for messages that will not come.
      if (this.mode === 'steady') await this.consuming;
    } finally {
      this.consumersRun = false;
      for (const client of [...this.clients.producers, ...this.clients.consumers]) client.close();
    }
    await this.consuming;
    if (drains) this.ledger.assertBalanced();
  }

  private async produce(client: QueueClient, turn: number): Promise<void> {
    const { batch, bodyBytes, priorities } = this.shape;
    const requests = Array.from({ length: priorities ?? 1 }, (_, first) =>
      enqueueRequest(batch, bodyBytes, priorities ? (place) => (first + place) % priorities : undefined),
    );
    for (let next = turn; ; next += 1) {
      await this.room.pass();
      if (!this.producersRun) return;
      this.ledger.recordEnqueued(await client.enqueue(requests[next % requests.length] as string));
      this.stock.wakeOne();
    }
  }

  private async consume(client: QueueClient): Promise<void> {
    const { batch } = this.shape;
    for (;;) {
      await this.stock.pass();
      if (!this.consumersRun) return;
      this.asked += batch;
      const messages = await client
        .dequeue({ maxMessages: batch, waitSeconds: WAIT_SECONDS })
        .catch((error: unknown) => {
          if (!this.consumersRun && error instanceof ConnectionClosedError) return [];
          throw error;
        });
      this.asked -= batch - messages.length;
      if (messages.length === 0) continue;
      await client.ack(messages);
      this.ledger.recordAcked(messages);
      this.room.wakeOne();
      if (this.ledger.backlog === 0) this.balance.wakeAll();
    }
  }

  private inStock(): number {
    return this.ledger.enqueued - this.asked;
  }
}
