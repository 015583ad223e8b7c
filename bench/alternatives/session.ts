import { performance } from 'node:perf_hooks';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { writtenBetween } from '../harness/database-probe.js';
import { ownCpuSeconds } from '../harness/process-usage.js';
import type { RunningServer } from '../harness/rig.js';

/** A connection that works as a broker's do: READ COMMITTED, several statements in one round trip. */
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

/** What a message costs the server. */
export type MessageCost = { messages: number; cpuMicros: number; redo: number; binlog: number };

/** Repeats a round for so many seconds, after a fifth of that to warm up; a round returns how many messages it did. */
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

/** The server's CPU, µs, of something that is done again and again for so many seconds. */
export async function microsOf(server: RunningServer, seconds: number, work: () => Promise<unknown>): Promise<number> {
  const { cpuMicros } = await costOf(server, seconds, async () => {
    await work();
    return 1;
  });
  return cpuMicros;
}

/** An id as UUIDv7s are, of this time and with this number in place of what is random, as SQL writes it. */
export function idAt(time: number, count: number): string {
  return `x'${time.toString(16).padStart(12, '0')}70008${count.toString(16).padStart(15, '0')}'`;
}
