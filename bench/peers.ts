import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError } from 'commander';
import { notNegative, positive } from './harness/options.js';
import { publish } from './harness/publish.js';
import { installClients, openSession } from './peers/installation.js';
import { type Peer, PeerUnavailableError, STRETCH_KINDS } from './peers/peer.js';
import { PEERS } from './peers/registry.js';
import { isRowmq, type LeftOut, type PeerResult, peersMarkdown, type Round } from './peers/report.js';

const RESULT_FILE = fileURLToPath(new URL('results/peers.json', import.meta.url));
const BODY_BYTES = 200;

interface Options {
  only: Peer[];
  runs: number;
  seconds: number;
  warmUpSeconds: number;
  json: string;
}

/** RowMQ beside other message systems, on the same machine and in the same minutes. */
export async function main(args: readonly string[]): Promise<void> {
  const options = readOptions(args);
  if (options.only.some((peer) => !isRowmq(peer))) installClients();
  const interrupt = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => interrupt.abort());
  const results = new Map<string, PeerResult>();
  const leftOut = new Map<string, LeftOut>();
  for (let run = 0; run < options.runs; run += 1) {
    // There and back again: what drifts in one direction hurts those who were last first.
    for (const peer of run % 2 === 0 ? options.only : options.only.toReversed()) {
      if (leftOut.has(peer.name)) continue;
      try {
        const { version, round } = await measure(peer, options, interrupt.signal);
        const result = results.get(peer.name) ?? { ...peer, version, rounds: [] };
        result.rounds.push(round);
        results.set(peer.name, result);
      } catch (error) {
        if (!(error instanceof PeerUnavailableError)) throw error;
        console.error(`${peer.name} is left out: ${error.message}`);
        leftOut.set(peer.name, { title: peer.title, reason: error.message });
      }
    }
  }
  await report(args, options, [...results.values()], [...leftOut.values()]);
}

/** All stretches of one peer, on servers of its own. */
async function measure(peer: Peer, options: Options, signal: AbortSignal): Promise<{ version: string; round: Round }> {
  const session = await openSession(peer, signal);
  try {
    const round: Round = {};
    for (const kind of STRETCH_KINDS.filter((one) => peer.stretches[one] !== undefined)) {
      const measured = await session.stretch(kind, { ...options, bodyBytes: BODY_BYTES });
      round[kind] = measured;
      const latency = measured.latency && `, p99 ${measured.latency.p99.toFixed(1)} ms`;
      console.error(`${peer.name}, ${kind}: ${Math.round(measured.messagesPerSecond)} messages/s${latency ?? ''}`);
    }
    await session.close();
    return { version: session.version, round };
  } catch (error) {
    await session.abandon();
    throw error;
  }
}

async function report(
  args: readonly string[],
  options: Options,
  measured: readonly PeerResult[],
  leftOut: readonly LeftOut[],
): Promise<void> {
  const results = PEERS.flatMap(({ name }) => measured.find((result) => result.name === name) ?? []);
  await publish({
    title: 'Beside other message systems',
    script: 'bench:peers',
    args,
    options,
    results: Object.fromEntries(results.map((result) => [`${result.title} (${result.version})`, result])),
    markdown: peersMarkdown(results, leftOut, options),
  });
}

function readOptions(args: readonly string[]): Options {
  return new Command('npm run bench:peers --')
    .description('RowMQ beside other message systems: rates, latencies and costs, all durable, in one run.')
    .helpOption('--help')
    .option('--only <names>', 'which, with commas between', namedPeers, [...PEERS])
    .option('--runs <count>', 'rounds; the tables show medians', positive, 3)
    .option('--seconds <seconds>', 'length of each measured stretch', positive, 10)
    .option('--warm-up-seconds <seconds>', 'load before each measured stretch', notNegative, 4)
    .option('--json <file>', 'where the results go; only those in bench/results show in bench/RESULTS.md', RESULT_FILE)
    .addHelpText('after', `\nNames:\n${PEERS.map(({ name, title }) => `  ${name}: ${title}`).join('\n')}`)
    .parse(args, { from: 'user' })
    .opts<Options>();
}

function namedPeers(text: string): Peer[] {
  return text.split(',').map((wanted) => {
    const peer = PEERS.find(({ name }) => name === wanted);
    if (peer === undefined) throw new InvalidArgumentError(`must be of ${PEERS.map(({ name }) => name).join(', ')}`);
    return peer;
  });
}
