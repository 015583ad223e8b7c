import { median } from '../harness/figures.js';
import { number, table } from '../harness/markdown.js';
import type { StretchKind } from './peer.js';
import { isRowmq, type PeerResult, ratios } from './report.js';

/** A target: a subject of RowMQ's reaches at least so many times a peer's rate. */
interface Target {
  kind: StretchKind;
  rowmq: string;
  /** Absent: the best of all. */
  peer?: string;
  atLeast: number;
}

const HTTP = ['rowmq-http-mysql', 'rowmq-http-mariadb'];
const IN_PROCESS = ['rowmq-repository-mysql', 'rowmq-repository-mariadb'];

/** The project's targets. Each of MySQL and MariaDB counts by itself. */
const TARGETS: readonly Target[] = [
  ...HTTP.flatMap((rowmq): Target[] => [
    { kind: 'single', rowmq, peer: 'pg-boss', atLeast: 10 },
    { kind: 'single', rowmq, peer: 'graphile-worker-100', atLeast: 5 },
  ]),
  { kind: 'batch', rowmq: 'rowmq-http-mariadb', peer: 'pg-boss', atLeast: 1.3 },
  { kind: 'batch', rowmq: 'rowmq-http-mysql', peer: 'pg-boss', atLeast: 1 },
  ...HTTP.flatMap((rowmq): Target[] => [
    { kind: 'batch', rowmq, peer: 'graphile-worker-500', atLeast: 0.8 },
    { kind: 'single', rowmq, peer: 'nats', atLeast: 1.2 },
    { kind: 'batch', rowmq, peer: 'nats', atLeast: 5 },
    { kind: 'batch', rowmq, peer: 'nats-atomic', atLeast: 5 },
  ]),
  { kind: 'batch', rowmq: 'rowmq-http-mariadb', peer: 'rabbitmq', atLeast: 0.7 },
  { kind: 'batch', rowmq: 'rowmq-http-mysql', peer: 'rabbitmq', atLeast: 0.5 },
  ...IN_PROCESS.map((rowmq): Target => ({ kind: 'batch', rowmq, atLeast: 1.2 })),
];

/** Each target with what was measured; targets that nothing was measured for are left out. */
export function targetTable(results: readonly PeerResult[]): string {
  const rows = TARGETS.flatMap(({ kind, rowmq, peer, atLeast }) => {
    const own = results.find(({ name }) => name === rowmq);
    const others = results.filter((result) => (peer === undefined ? !isRowmq(result) : result.name === peer));
    if (own === undefined) return [];
    const measured = ratios(own, others, kind);
    if (measured.length === 0) return [];
    const ratio = median(measured);
    const against = peer === undefined ? 'the best of the peers' : (others[0]?.title ?? peer);
    const what = `${own.title}, ${kind === 'batch' ? 'batch 100' : 'one at a time'}, against ${against}`;
    return [[what, `${atLeast}×`, `${number(ratio, 2)}×`, ratio >= atLeast ? 'reached' : 'missed']];
  });
  return table(['what', 'at least', 'measured', ''], rows);
}
