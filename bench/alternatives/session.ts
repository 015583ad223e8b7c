import { performance } from 'node:perf_hooks';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { writtenBetween } from '../harness/database-probe.js';
import { ownCpuSeconds } from '../harness/process-usage.js';
import type { RunningServer } from '../harness/rig.js';

/** A connection like a broker's: READ COMMITTED, several statements in one round trip. */
export interface SqlSession {
  /** Runs statements in one round trip. Returns the answer of the last. */
  run(sql: string): Promise<RowDataPacket[]>;
  close(): Promise<void>;
}

export async function openSession(url: string): Promise<SqlSession> {
  const connection = await createConnection({ uri: url, multipleStatements: true, supportBigNumbers: true });
  await connection.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED');
  return {
    run: async (sql) => {
      const [answer] = await connection.query(sql);
      const several = Array.isArray(answer) && Array.isArray((answer as unknown[]).at(-1));
      return (several ? (answer as unknown[]).at(-1) : answer) as RowDataPacket[];
    },
    close: () => connection.end(),
  };
}

/** Costs of a message at the server. */
export type MessageCost = { messages: number; cpuMicros: number; redo: number; binlog: number };

/**
 * Repeats a round for so many seconds, after a fifth of that to warm up. A round returns the number
 * of its messages.
 */
export async function costOf(
  server: RunningServer,
  seconds: number,
  round: () => Promise<number>,
): Promise<MessageCost> {
  const repeat = async (forSeconds: number): Promise<number> => {
    let messages = 0;
    for (const until = performance.now() + forSeconds * 1000; performance.now() < until;) messages += await round();
    return messages;
  };
  await repeat(seconds / 5);
  const [cpuBefore, writtenBefore] = [await ownCpuSeconds(server.pid), await server.probe.writtenBytes()];
  const messages = await repeat(seconds);
  const [cpuAfter, writtenAfter] = [await ownCpuSeconds(server.pid), await server.probe.writtenBytes()];
  const { redo, binlog } = writtenBetween(writtenBefore, writtenAfter);
  return {
    messages,
    cpuMicros: ((cpuAfter - cpuBefore) * 1e6) / messages,
    redo: redo / messages,
    binlog: binlog / messages,
  };
}

/** CPU of the server, µs, for one run of `work`, which is repeated for so many seconds. */
export async function microsOf(server: RunningServer, seconds: number, work: () => Promise<unknown>): Promise<number> {
  const { cpuMicros } = await costOf(server, seconds, async () => {
    await work();
    return 1;
  });
  return cpuMicros;
}

/** A UUIDv7 as an SQL literal. It holds this time, and this number instead of random bits. */
export function idAt(time: number, count: number): string {
  return `x'${time.toString(16).padStart(12, '0')}70008${count.toString(16).padStart(15, '0')}'`;
}
