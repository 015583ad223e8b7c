import { END_TO_END } from './harness/broker-load.js';
import type { Timing } from './harness/stretch.js';
import { type Comparison, latencyTable, rateTable, ratioTable, type ServerResults } from './harness/tables.js';

const COMPARISONS: readonly Comparison[] = [
  { label: 'group commit to one commit per request, batch 1', of: 'batch 1', to: 'batch 1, one commit per request' },
  ...['batch 1', 'batch 10'].flatMap((batch) => [
    { label: `16 queues to one, ${batch}`, of: `${batch}, 16 queues`, to: batch },
    { label: `ten priorities in use to one, ${batch}`, of: `${batch}, ten priorities`, to: batch },
  ]),
  { label: '1,000 groups in order to none, batch 10', of: 'batch 10, 1,000 groups in order', to: 'batch 10' },
  {
    label: 'publishes to 10 subscribers to enqueues, batch 10',
    of: 'batch 10: publish to 10 subscribers',
    to: 'batch 10: enqueue only',
  },
];

/** The section of bench/RESULTS.md. */
export function throughputMarkdown(
  results: ServerResults,
  { runs, seconds, warmUpSeconds }: Timing & { runs: number },
): string {
  return `Unless the scenario says otherwise, the load is full lifecycles (enqueue, dequeue, ack) over HTTP,
with bodies of 200 bytes. At batch 1 there are 50 producers and 50 consumers, at batch 10 16 and 16,
at batch 100 8 and 8. Each has one call in flight. Every message is accounted for by its id, and the
queue is empty in the database at the end. Figures are medians (lowest – highest) of ${runs} stretches of
${seconds} s after ${warmUpSeconds} s of warm-up. The scenarios run in rounds.

${rateTable(results)}

${ratioTable(results, () => COMPARISONS)}

Latency of each verb in these closed loops, in which requests wait for each other. Dequeue includes
its wait for messages.

${latencyTable(results, ['enqueue', 'dequeue', 'ack'])}

End-to-end latency, from the start of the enqueue request to the dequeue answer with the message.
Single messages arrive at a steady rate, and eight consumers wait on the same broker.

${latencyTable(results, [END_TO_END])}`;
}
