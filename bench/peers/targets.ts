import { median } from '../harness/figures.js';
import { number, table } from '../harness/markdown.js';
import { isRowmq, NAMES, type PeerResult, ratios } from './report.js';

/** A target: a subject of RowMQ's reaches at least so many times a peer's rate. */
interface Target {
  kind: keyof typeof NAMES;
  rowmq: string;
  /** Absent: the best of all. */
  peer?: string;
  atLeast: number;
}

/** The project's targets. Each of MySQL and MariaDB counts by itself. */
const TARGETS: readonly Target[] = ['mysql', 'mariadb'].flatMap((server): Target[] => {
  const http = `rowmq-http-${server}`;
  const twoBrokers = `rowmq-two-brokers-${server}`;
  const client = `rowmq-client-${server}`;
  return [
    { kind: 'batch', rowmq: http, peer: 'rabbitmq', atLeast: 1 },
    { kind: 'batch', rowmq: http, peer: 'graphile-worker-500', atLeast: 1.6 },
    { kind: 'batch', rowmq: http, peer: 'pg-boss', atLeast: server === 'mariadb' ? 1.3 : 1 },
    { kind: 'batch', rowmq: http, peer: 'nats', atLeast: 5 },
    { kind: 'batch', rowmq: http, peer: 'nats-atomic', atLeast: 5 },
    { kind: 'single', rowmq: http, peer: 'pg-boss', atLeast: 10 },
    { kind: 'single', rowmq: http, peer: 'graphile-worker-100', atLeast: 5 },
    { kind: 'single', rowmq: http, peer: 'nats', atLeast: 1.2 },
    { kind: 'used', rowmq: client, peer: 'bullmq', atLeast: 1 },
    { kind: 'used', rowmq: client, peer: 'rabbitmq', atLeast: 0.7 },
    { kind: 'batch', rowmq: twoBrokers, peer: http, atLeast: 1 },
    { kind: 'single', rowmq: twoBrokers, peer: http, atLeast: 1 },
    { kind: 'batch', rowmq: `rowmq-repository-${server}`, atLeast: 1 },
  ];
});

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
    const what = `${own.title}, ${NAMES[kind]}, against ${against}`;
    return [[what, `${atLeast}×`, `${number(ratio, 2)}×`, ratio >= atLeast ? 'reached' : 'missed']];
  });
  return table(['what', 'at least', 'measured', ''], rows);
}
