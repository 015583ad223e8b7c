import { median } from '../harness/figures.js';
import { number, table } from '../harness/markdown.js';
import type { Peer, StretchKind } from './peer.js';
import type { Measured } from './session.js';
import { targetTable } from './targets.js';

/** One peer's stretches in one round. */
export type Round = Partial<Record<StretchKind, Measured>>;

/** A peer over all rounds. */
export interface PeerResult extends Pick<Peer, 'name' | 'title' | 'durability' | 'settings' | 'stretches'> {
  version: string;
  rounds: Round[];
}

/** A peer that was not measured. */
export interface LeftOut {
  title: string;
  reason: string;
}

const RATED = ['batch', 'single', 'used'] as const;
/** As the tables call the kinds of stretches that have a rate. */
export const NAMES = { batch: 'batch 100', single: 'one at a time', used: 'as used' };

/** The section of bench/RESULTS.md. */
export function peersMarkdown(
  results: readonly PeerResult[],
  leftOut: readonly LeftOut[],
  { runs, seconds, warmUpSeconds }: { runs: number; seconds: number; warmUpSeconds: number },
): string {
  const paragraphs = [
    `The load is full lifecycles of 200-byte messages (enqueue, hand out, settle). Every message is
counted and checked. All peers run the same closed loops: at most 4,000 messages outstanding at
batch 100, and at most 1,000 one at a time, with 50 producers and 50 consumers. "As used" is the
system's own Node client: 50 callers in one process send one message a call, and 50 handlers in
another process take them, with at most 1,000 messages outstanding.

Figures are medians (lowest – highest) of ${runs} rounds. Each peer runs once a round, in opposite order
every other round, on new server processes with empty data. Stretches take ${seconds} s after ${warmUpSeconds} s of warm-up.
The client is a process of its own. Latency is the time from when a message was due until a consumer
had it, at a steady 200 messages/s.`,
    table(
      ['peer', ...RATED.map((kind) => `${NAMES[kind]}, messages/s`), 'at 200/s: p50, ms', 'p99, ms'],
      results.map((result) => [result.title, ...RATED.map((kind) => rates(result, kind)), ...latencies(result)]),
    ),
    'CPU time of a message in µs, of all server processes and of the client, both processes together:',
    table(
      ['peer', ...RATED.flatMap((kind) => [`${NAMES[kind]}: servers`, 'client'])],
      results.map((result) => [result.title, ...RATED.flatMap((kind) => costs(result, kind))]),
    ),
    "RowMQ's rate divided by the peer's rate in the same round; medians:",
    ratioTable(results),
    'Targets, and whether RowMQ reached them:',
    targetTable(results),
    'Set-up of each peer:',
    table(
      ['peer', 'server', 'durable by', 'set up for throughput'],
      results.map(({ title, version, durability, settings }) => [title, version, durability, settings]),
    ),
    `RabbitMQ, NATS and Graphile Worker do not answer an acknowledgement. A message counts as done when
its acknowledgement is sent. The stretch ends only when the server has nothing left.`,
  ];
  for (const { title, reason } of leftOut) paragraphs.push(`${title} was left out: ${reason}`);
  return paragraphs.join('\n\n');
}

/** A figure of each round in which it was measured. */
export function perRound(result: PeerResult | undefined, figure: (round: Round) => number | undefined): number[] {
  return (result?.rounds ?? []).map(figure).filter((value) => value !== undefined);
}

/** RowMQ's rate divided by another's, in each round that has both. */
export function ratios(rowmq: PeerResult, peers: readonly PeerResult[], kind: StretchKind): number[] {
  return rowmq.rounds.flatMap((round, index) => {
    const own = round[kind]?.messagesPerSecond;
    const others = peers.flatMap((peer) => peer.rounds[index]?.[kind]?.messagesPerSecond ?? []);
    return own === undefined || others.length === 0 ? [] : [own / Math.max(...others)];
  });
}

export function isRowmq({ name }: Pick<Peer, 'name'>): boolean {
  return name.startsWith('rowmq-');
}

function ratioTable(results: readonly PeerResult[]): string {
  const columns = results
    .filter(isRowmq)
    .flatMap((rowmq) => RATED.filter((kind) => rowmq.stretches[kind]).map((kind) => ({ rowmq, kind })));
  return table(
    ['peer', ...columns.map(({ rowmq, kind }) => `${rowmq.title}, ${NAMES[kind]}`)],
    results
      .filter((result) => !isRowmq(result))
      .map((peer) => [
        peer.title,
        ...columns.map(({ rowmq, kind }) => {
          const measured = ratios(rowmq, [peer], kind);
          return measured.length === 0 ? '–' : number(median(measured), 2);
        }),
      ]),
  );
}

function rates(result: PeerResult, kind: StretchKind): string {
  const values = perRound(result, (round) => round[kind]?.messagesPerSecond);
  if (values.length === 0) return '–';
  return `${number(median(values))} (${number(Math.min(...values))} – ${number(Math.max(...values))})`;
}

function latencies(result: PeerResult): string[] {
  return (['p50', 'p99'] as const).map((share) => {
    const values = perRound(result, ({ steady }) => steady?.latency?.[share]);
    return values.length === 0 ? '–' : number(median(values));
  });
}

/** Shows each process of the servers if there are several. */
function costs(result: PeerResult, kind: StretchKind): string[] {
  const names = Object.keys(result.rounds[0]?.[kind]?.cpuPerMessage ?? {});
  const cost = (name: string): string =>
    number(median(perRound(result, (round) => round[kind]?.cpuPerMessage[name])), 0);
  if (names.length === 0) return ['–', '–'];
  const servers = names.filter((name) => name !== 'client');
  const parts = servers.map((name) => (servers.length > 1 ? `${name} ${cost(name)}` : cost(name)));
  return [parts.join(' + '), cost('client')];
}
