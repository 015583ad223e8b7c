import type { Result } from '../../tools/simulator/src/simulation.js';

/** One kind of fault, and what came of it, over all its rounds. */
interface Row {
  fault: string;
  times: number;
  /** Requests of the load that were under way when it happened, added up. */
  inFlight: number;
  /** Requests with an unknown outcome, by what the client knows: {@link UNKNOWN}. */
  unknown: Map<string, number>;
  messages: number;
  lost: number;
  redelivered: number;
  unexplained: number;
  /** ms from the fault to the end of the first message's life that began after it. */
  recovery: number[];
}

/**
 * The errors that leave open whether a request was carried out. `no-answer` stands for a broken
 * connection, and `database-unavailable` for a COMMIT that the broker could not resolve.
 */
export const UNKNOWN = ['no-answer', 'database-unavailable'] as const;
/** The errors of a request that was certainly not carried out. */
export const NOT_DONE = ['unreachable', 'overloaded'] as const;

const rows = new Map<string, Row>();

/** Adds what one round of a fault came to. */
export function record(fault: string, inFlight: number, recovery: readonly number[], results: readonly Result[]): void {
  const row: Row = rows.get(fault) ?? {
    fault,
    times: 0,
    inFlight: 0,
    unknown: new Map<string, number>(),
    messages: 0,
    lost: 0,
    redelivered: 0,
    unexplained: 0,
    recovery: [],
  };
  rows.set(fault, row);
  row.times += 1;
  row.inFlight += inFlight;
  row.recovery.push(...recovery);
  for (const { errors, verdict, messages } of results) {
    for (const code of UNKNOWN) row.unknown.set(code, (row.unknown.get(code) ?? 0) + (errors[code] ?? 0));
    row.messages += messages;
    row.lost += broken(verdict, 'Nothing is lost');
    row.redelivered += Object.values(verdict.redeliveries).reduce((sum, count) => sum + count, 0);
    row.unexplained += broken(verdict, 'Every redelivery has its reason');
  }
}

function broken(verdict: Result['verdict'], title: string): number {
  const found = verdict.guarantees.find(({ guarantee }) => guarantee === title);
  if (found === undefined) throw new Error(`the verdict has no guarantee '${title}'`);
  return found.broken;
}

/** The number of unknown outcomes, and their causes if there are any. */
function unknownText({ unknown }: Row): string {
  const causes = [...unknown].filter(([, count]) => count > 0);
  const total = causes.reduce((sum, [, count]) => sum + count, 0);
  return total === 0 ? '0' : `${total}: ${causes.map(([code, count]) => `${count} ${code}`).join(', ')}`;
}

/** The table as Markdown; empty when nothing was recorded. */
export function tableText(): string {
  if (rows.size === 0) return '';
  const seconds = (ms: number): string => (ms / 1000).toFixed(1);
  const lines = [...rows.values()].map(
    (row) =>
      `| ${row.fault} | ${row.times} | ${row.inFlight} | ${unknownText(row)} | ${row.messages} | ${row.lost} | ${row.redelivered} / ${row.unexplained} | ${
        row.recovery.length === 0
          ? '–'
          : `${seconds(Math.min(...row.recovery))} – ${seconds(Math.max(...row.recovery))}`
      } |`,
  );
  return [
    '| fault | times | requests in flight | unknown outcomes | messages | lost | redelivered / unexplained | service again after, s |',
    '|---|---|---|---|---|---|---|---|',
    ...lines,
  ].join('\n');
}
