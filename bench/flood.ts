import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { RowmqHttpClient } from '@rowmq/client/core';
import { LoadGenerator, Tally, type Turn } from '@rowmq/load';
import { BrokerLoad, END_TO_END } from './harness/broker-load.js';
import { medians, type Quantiles } from './harness/figures.js';
import { HttpConnection } from './harness/http-connection.js';
import { BATCH_10, type Load, type QueueLoadShape } from './harness/load.js';
import { number, table } from './harness/markdown.js';
import { benchCommand, type BenchOptions, positive } from './harness/options.js';
import { publish } from './harness/publish.js';
import { onEachServer, type Rig, type RunningBroker } from './harness/rig.js';
import { assertDepth } from './harness/scenario.js';
import { measure, settle, type Stretch, type Timing } from './harness/stretch.js';

interface Options extends BenchOptions {
  times: number;
}

/** The figures of the others, and the fate of the flood meanwhile. */
type Flooded = Stretch & {
  flood: { sentPerSecond: number; acceptedPerSecond: number; refusedPerSecond: number; mostWaiting: number };
};

const OTHERS = 2;
/** One of the others: single messages, far below what the machine can do. */
const OTHER = { batch: 1, producers: { perSecond: 50 }, consumers: 20, bodyBytes: 200, countsFromDue: true };
/** The flood's connections, each with a call under way while the broker is behind. */
const CONNECTIONS = 500;
/** Less than that, so that the room of waiting requests is full. */
const WAITING_REQUESTS = 200;
const FLOODING = 'flood';
/** A broker looks at its keys every three seconds. */
const KNOWN_MS = 4000;
/** The part of the machine's rate that the flood's key may use where it has a limit. */
const LIMITED_TO = 1 / 8;

const ALONE = 'without a flood';
const FREE = 'the flood has no limit';
const LIMITED = 'the flood’s key has a limit';

/** Measures two callers while a third one, with a key of its own, floods the broker. */
export async function main(args: readonly string[], rig?: Rig): Promise<void> {
  const options = readOptions(args);
  const results = await onEachServer({ ...options, rig }, async (on) => measureRounds(on, options));
  await publish({
    title: 'Two callers beside a flood',
    script: 'bench:flood',
    args,
    options,
    results,
    markdown: toMarkdown(results, options),
  });
}

function readOptions(args: readonly string[]): Options {
  const defaults = { runs: 3, seconds: 40, json: 'flood' };
  return benchCommand('bench:flood', 'What two callers notice while a third one floods the broker.', defaults)
    .option('--times <factor>', 'the flood, in rates that the machine can do', positive, 2)
    .parse(args, { from: 'user' })
    .opts<Options>();
}

type Results = Record<string, { runs: Flooded[]; median: Flooded }>;

async function measureRounds(rig: Rig, options: Options): Promise<Results> {
  const site = await Site.open(rig);
  const runs = new Map<string, Flooded[]>([ALONE, FREE, LIMITED].map((name) => [name, []]));
  try {
    for (let round = 1; round <= options.runs; round += 1) {
      await site.limit(null);
      const capacity = await site.capacity();
      for (const [name, measured] of runs) {
        await settle(rig);
        await site.limit(name === LIMITED ? Math.ceil(capacity * LIMITED_TO) : null);
        measured.push(await site.measure(name === ALONE ? 0 : capacity * options.times, options));
        console.error(`  ${rig.database.name}, run ${round} of ${options.runs}, ${name}: measured`);
      }
    }
  } finally {
    await site.close();
  }
  return Object.fromEntries([...runs].map(([name, of]) => [name, { runs: of, median: medians(of) }]));
}

/** A broker that asks for keys, with a key for each caller. */
class Site {
  private constructor(
    private readonly rig: Rig,
    private readonly broker: RunningBroker,
    private readonly admin: RowmqHttpClient,
    private readonly keys: { flood: string; others: string[] },
  ) {}

  static async open(rig: Rig): Promise<Site> {
    const apiKey = randomBytes(24).toString('hex');
    const broker = await rig.broker({
      ROWMQ_ADMIN_KEY: apiKey,
      ROWMQ_MAX_WAITING_REQUESTS: String(WAITING_REQUESTS),
    });
    const admin = new RowmqHttpClient({ url: broker.url, apiKey });
    const secretOf = async (name: string): Promise<string> =>
      (await admin.createKey({ name, scopes: ['enqueue', 'dequeue'] })).secret;
    const flood = await secretOf(FLOODING);
    const others = await Promise.all(Array.from({ length: OTHERS }, async (_, nth) => secretOf(`other-${nth}`)));
    return new Site(rig, broker, admin, { flood, others });
  }

  /** Messages a second that the machine takes in the flood's batches, if it does nothing else. */
  async capacity(): Promise<number> {
    const shape = { ...BATCH_10, queues: await this.rig.newQueues(1), apiKey: this.keys.flood };
    const producing = await BrokerLoad.start(this.broker.url, shape, 'produce');
    const { perSecond } = await measure(this.rig, this.broker, producing, { warmUpSeconds: 1, seconds: 3 });
    await producing.stop();
    const draining = await BrokerLoad.start(this.broker.url, shape, 'drain', producing.tally);
    await draining.ended;
    await draining.stop();
    return perSecond;
  }

  /** Changes the limit of the flood's key, and waits until the broker knows it. */
  async limit(messagesPerSecond: number | null): Promise<void> {
    await this.admin.putKeyLimits(FLOODING, { messagesPerSecond });
    await sleep(KNOWN_MS);
  }

  async measure(floodPerSecond: number, timing: Timing): Promise<Flooded> {
    const { rig, broker, keys } = this;
    const queues = await rig.newQueues(1 + OTHERS);
    const shapes = keys.others.map((apiKey, nth) => ({ ...OTHER, apiKey, queues: [queues[1 + nth] as string] }));
    const others = await Promise.all(shapes.map(async (shape) => BrokerLoad.start(broker.url, shape)));
    const shape = { ...BATCH_10, apiKey: keys.flood, queues: [queues[0] as string] };
    const flood = floodPerSecond === 0 ? undefined : await Flood.start(broker.url, shape, floodPerSecond);
    const load = new Together(others, flood);
    const before = { ...flood?.counts };
    const stretch = await measure(rig, broker, load, timing);
    const since = (what: keyof Flood['counts']): number =>
      ((flood?.counts[what] ?? 0) - (before[what] ?? 0)) / stretch.seconds;
    const acceptedPerSecond = since('accepted');
    const refusedPerSecond = since('refused');
    const mostWaiting = flood?.mostWaiting ?? 0;
    await load.stop();
    for (const queue of queues) await assertDepth(rig, queue, 0);
    return {
      ...stretch,
      flood: { sentPerSecond: acceptedPerSecond + refusedPerSecond, acceptedPerSecond, refusedPerSecond, mostWaiting },
    };
  }

  async close(): Promise<void> {
    await this.admin.close();
  }
}

/** Several callers. It counts the messages of those who do not flood. */
class Together implements Load {
  readonly isIdle = false;
  readonly ended: Promise<void>;

  constructor(
    private readonly others: readonly BrokerLoad[],
    private readonly flood: Flood | undefined,
  ) {
    this.ended = Promise.race([...others, ...(flood ? [flood] : [])].map(async ({ ended }) => ended));
    this.ended.catch(() => undefined);
  }

  done(): number {
    return this.others.reduce((sum, load) => sum + load.done(), 0);
  }

  /** Returns those of the caller who fares worst. */
  takeLatencies(): Record<string, Quantiles> {
    const each = this.others.map((load) => load.takeLatencies());
    const worst = (name: string): Quantiles[] =>
      each
        .flatMap((one) => one[name] ?? [])
        .toSorted((a, b) => b.p99 - a.p99)
        .slice(0, 1);
    return Object.fromEntries(['enqueue', END_TO_END].flatMap((name) => worst(name).map((of) => [name, of])));
  }

  /** The others end at once. The accepted messages of the flood are dequeued and acked. */
  async stop(): Promise<void> {
    await Promise.all(this.others.map(async (load) => load.stop()));
    await this.flood?.stop();
  }
}

/**
 * Enqueues at a rate, whatever the broker answers. Consumers take what was accepted. A refusal must
 * say when to come again, but the flood does not obey.
 */
class Flood {
  readonly counts = { accepted: 0, refused: 0 };
  /** Messages that were accepted and not yet acked, at their most. */
  mostWaiting = 0;
  readonly ended: Promise<void>;
  private readonly connections: (HttpConnection | undefined)[] = [];
  private readonly producing: LoadGenerator;
  private readonly request: string;
  private readonly path: string;

  private constructor(
    private readonly url: string,
    private readonly shape: QueueLoadShape,
    perSecond: number,
    private readonly tally: Tally<string | number>,
    private readonly consuming: BrokerLoad,
  ) {
    const body = 'x'.repeat(shape.bodyBytes);
    this.request = JSON.stringify({ messages: Array.from({ length: shape.batch }, () => ({ body })) });
    this.path = `/v1/queues/${shape.queues[0]}/messages`;
    this.producing = new LoadGenerator({ perSecond: perSecond / shape.batch, maxInFlight: CONNECTIONS }, async (turn) =>
      this.enqueue(turn),
    );
    this.ended = this.producing.ended;
  }

  static async start(url: string, shape: QueueLoadShape, perSecond: number): Promise<Flood> {
    const tally = new Tally<string | number>(true);
    return new Flood(url, shape, perSecond, tally, await BrokerLoad.start(url, shape, 'drain', tally));
  }

  /** Throws if a message that was accepted is lost or came twice. */
  async stop(): Promise<void> {
    await this.producing.stop();
    for (const connection of this.connections) connection?.close();
    await this.consuming.stop();
  }

  private async enqueue({ worker }: Turn): Promise<void> {
    const connection = (this.connections[worker] ??= await HttpConnection.open(this.url, this.shape.apiKey));
    const { status, text, retryAfter } = await connection.post(this.path, this.request);
    if (status === 201) {
      const { messages } = JSON.parse(text) as { messages: { id: string }[] };
      this.tally.send(messages.map(({ id }) => id));
      this.counts.accepted += messages.length;
      this.mostWaiting = Math.max(this.mostWaiting, this.tally.outstanding);
    } else if (retryAfter !== undefined && (status === 429 || status === 503)) {
      this.counts.refused += this.shape.batch;
    } else {
      throw new Error(`the flood got ${status} without Retry-After: ${text.slice(0, 500)}`);
    }
  }
}

function toMarkdown(results: Record<string, Results>, { runs, seconds, times }: Options): string {
  const head = [
    'server',
    'scenario',
    'the others, end to end: p50 / p99 ms',
    'p99 to that without a flood',
    'their enqueues: p50 / p99 ms',
    'flood: messages/s accepted',
    'refused',
    'waiting at most',
    'broker MiB, start → end',
  ];
  const rows = Object.entries(results).flatMap(([server, scenarios]) =>
    Object.entries(scenarios).map(([name, { median: figures }]) => {
      const { latencyMs, flood, brokerMegabytes } = figures;
      const alone = scenarios[ALONE]?.median.latencyMs[END_TO_END]?.p99 ?? Number.NaN;
      return [
        server,
        name,
        percentiles(latencyMs[END_TO_END]),
        `**${number((latencyMs[END_TO_END]?.p99 ?? Number.NaN) / alone)}**`,
        percentiles(latencyMs['enqueue']),
        number(flood.acceptedPerSecond, 0),
        number(flood.refusedPerSecond, 0),
        number(flood.mostWaiting, 0),
        `${number(brokerMegabytes.start, 0)} → ${number(brokerMegabytes.end, 0)}`,
      ];
    }),
  );
  return `Two callers enqueue 50 single messages a second each, and ${OTHER.consumers} consumers of each wait for them. A
third caller, with a key of its own, enqueues batches of ${BATCH_10.batch} at ${times} times the rate that the machine can
take, over ${CONNECTIONS} connections. It never waits, whatever \`Retry-After\` says. ${BATCH_10.consumers} consumers take what was
accepted. In the last scenario, its key may send an eighth of that rate. At most ${WAITING_REQUESTS} requests wait
in the broker. Latencies count from the moment at which a request was due, and are those of the
caller who fares worse. Each message that was accepted came back exactly once. Medians of ${runs}
stretches of ${seconds} s, in rounds.

${table(head, rows)}`;
}

function percentiles(latency: Quantiles | undefined): string {
  return latency ? `${number(latency.p50)} / ${number(latency.p99)}` : '–';
}
