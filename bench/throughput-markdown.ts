import { END_TO_END } from './harness/broker-load.js';
import type { Timing } from './harness/stretch.js';
import { type Comparison, latencyTable, rateTable, ratioTable, type ServerResults } from './harness/tables.js';

const COMPARISONS: readonly Comparison[] = [
  { label: 'group commit to one commit per request, batch 1', of: 'batch 1', to: 'batch 1, one commit per request' },
  ...['batch 1', 'batch 10'].flatMap((batch) => [
    { label: `16 queues to one, ${batch}`, of: `${batch}, 16 queues`, to: batch },
    { label: `ten priorities in use to one, ${batch}`, of: `${batch}, ten priorities`, to: batch },
  ]),
];

/** The section of bench/RESULTS.md. */
export function throughputMarkdown(
  results: ServerResults,
  { runs, seconds, warmUpSeconds }: Timing & { runs: number },
): string {
  return `Full lifecycles (enqueue, dequeue, ack) over HTTP unless the scenario says otherwise: 50 producers and 50 consumers at batch 1, 16 and 16 at batch 10, 8 and 8 at batch 100, each with one
call under way; bodies of 200 bytes unless the scenario says otherwise. Every message is accounted for by its id, and the queue is empty in the database at the end. Medians (lowest – highest) of ${runs}
stretches of ${seconds} s after ${warmUpSeconds} s of warm-up, the scenarios in rounds.

${rateTable(results)}

${ratioTable(results, () => COMPARISONS)}

Latency of each verb under those closed loops, where requests wait for each other; a dequeue's includes its wait for messages:

${latencyTable(results, ['enqueue', 'dequeue', 'ack'])}

From the start of the enqueue request to the dequeue answer that holds the message, at a steady rate of single messages, with eight consumers that wait on the same broker:

${latencyTable(results, [END_TO_END])}`;
}
