import type { Fate } from './fate.js';
import type { Result } from './simulation.js';

/** Fates of messages, in words. */
export const FATES: Record<Fate, string> = {
  acked: 'acked',
  expired: 'expired',
  ackUnanswered: 'ack sent, no answer',
  unaccounted: 'neither acked nor expired',
  refused: 'refused, or not sent because no broker was reachable',
  neverConfirmed: 'enqueue without an answer',
};

/** The causes of redeliveries, in words. */
export const CAUSES: Record<keyof Result['verdict']['redeliveries'], string> = {
  ranOut: 'lease ran out',
  nack: 'nack',
  nackUnanswered: 'nack without an answer',
  answerLost: 'dequeue whose answer was lost',
};

/** The verdict as a person reads it in a terminal. */
export function verdictText(result: Result): string {
  const { verdict, totals, latency } = result;
  const lines = [
    '',
    `${n(result.messages)} messages sent, ${n(result.leases)} leases seen; ${n(totals.acked)} acks, ${n(totals.nacked)} nacks, ${n(totals.extended)} extends.`,
    `Messages: ${pairs(verdict.fates, FATES)}.`,
    `Redeliveries explained: ${pairs(verdict.redeliveries, CAUSES)}.`,
    `Faults: ${n(totals.vanished)} leases of consumers that vanished, ${n(totals.hungUp)} hang-ups, ${n(totals.slow)} messages handled too slowly; ${n(totals.leaseLost)} stale receipts refused.`,
    `Errors: ${errorsText(result.errors)}.`,
    `Latency p50 / p95 / p99, ms: enqueue ${percentiles(latency.enqueue)}, dequeue ${percentiles(latency.dequeue)}, ack ${percentiles(latency.ack)}, end to end ${percentiles(latency.endToEnd)}.`,
    ...result.notes.map((note) => `Note: ${note}`),
    '',
    ...table(result),
    ...examples(result),
    '',
    `Verdict: ${verdict.status}`,
    '',
  ];
  return lines.join('\n');
}

function table({ verdict }: Result): string[] {
  const width = Math.max(...verdict.guarantees.map(({ guarantee }) => guarantee.length));
  return verdict.guarantees.map(({ guarantee, status, checked, unit, broken, unproven }) => {
    const faults = [broken > 0 ? `${n(broken)} broken` : '', unproven > 0 ? `${n(unproven)} unproven` : ''];
    const found = faults.filter((fault) => fault !== '').join(', ');
    return `  ${guarantee.padEnd(width)}  ${status.padEnd(8)}  ${n(checked)} ${unit} checked${found === '' ? '' : `, ${found}`}`;
  });
}

function examples({ verdict }: Result): string[] {
  return verdict.guarantees.flatMap(({ guarantee, examples: found, status }) =>
    found.length === 0
      ? []
      : [
          '',
          `${guarantee}: ${status}. The first ${found.length}:`,
          ...found.flatMap(({ why, history }) => [`  - ${why}`, ...history.map((line) => `      ${line}`)]),
        ],
  );
}

/** The counts that are not 0, each with its words. */
function pairs<Key extends string>(counts: Record<Key, number>, words: Record<Key, string>): string {
  const keys = Object.keys(words).filter((key): key is Key => key in words);
  const texts = keys.filter((key) => counts[key] > 0).map((key) => `${n(counts[key])} ${words[key]}`);
  return texts.length === 0 ? 'none' : texts.join(', ');
}

function errorsText(errors: Record<string, number>): string {
  const texts = Object.entries(errors).map(([code, count]) => `${n(count)} ${code}`);
  return texts.length === 0 ? 'none' : texts.join(', ');
}

function percentiles({ p50, p95, p99 }: Result['latency']['enqueue']): string {
  return [p50, p95, p99].map((value) => (value === null ? '–' : value.toFixed(1))).join(' / ');
}

const n = (value: number) => value.toLocaleString('en');
