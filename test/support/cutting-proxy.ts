import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/**
 * The moment of a cut. `before`: the server has not seen the statement. `after`: the server has
 * executed it, and its answer has not arrived. `late`: the server gets the statement after the cut,
 * when the client may already retry. `held`: the server executes it, but the connection stays open
 * without an answer until the answer is let go.
 */
export type Cut = 'before' | 'late' | 'after' | 'held';

const LATE_MS = 300;
const COMMIT = Buffer.from('COMMIT');

const DELETE = Buffer.from('DELETE d ');
/** The text of a packet's statements begins within these bytes. */
const START_BYTES = 16;

/**
 * Tells whether a packet commits: it carries a COMMIT, which comes last, or a lone ack. Every new
 * connection sends READ COMMITTED, which does not count.
 */
export const commits = (packet: Buffer): boolean =>
  packet.subarray(-COMMIT.length).equals(COMMIT) ||
  (packet.subarray(0, START_BYTES).includes(DELETE) && !packet.includes(';'));

/** A proxy between client and database that cuts connections at certain statements. */
export interface CuttingProxy {
  /** The database's URL through the proxy. */
  url: string;
  /**
   * Cuts at the next packets that contain this text or match: at one, unless `times` says
   * otherwise.
   */
  cutAt(statement: string | ((packet: Buffer) => boolean), when: Cut, times?: number): void;
  /** The number of cuts so far. */
  cuts(): number;
  /** Passes on the answers that it holds. */
  letGo(): void;
  close(): Promise<void>;
}

/**
 * Starts a proxy for a database.
 * @param lateMs the delay after which a late statement reaches the server
 */
export async function startCuttingProxy(databaseUrl: string, { lateMs = LATE_MS } = {}): Promise<CuttingProxy> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let armed: { isMeant: (packet: Buffer) => boolean; when: Cut; times: number } | undefined;
  let cuts = 0;
  const held: (() => void)[] = [];
  const server = createServer((client) => {
    const upstream = connect(Number(target.port), target.hostname);
    let cutting = false;
    let holding = false;
    const cut = (): void => {
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', cut);
      socket.on('close', () => {
        sockets.delete(socket);
        cut();
      });
    }
    client.on('data', (chunk) => {
      if (armed !== undefined && armed.isMeant(chunk)) {
        const { when } = armed;
        armed.times -= 1;
        if (armed.times === 0) armed = undefined;
        cuts += 1;
        if (when === 'before') return cut();
        holding = when === 'held';
        cutting = !holding;
        if (when === 'late') {
          // The server still reads from a half-closed connection.
          client.removeAllListeners('close');
          client.destroy();
          setTimeout(() => upstream.write(chunk), lateMs);
          return;
        }
      }
      upstream.write(chunk);
    });
    // The server answers after it has executed the statement.
    upstream.on('data', (chunk) => {
      if (cutting) cut();
      else if (holding)
        held.push(() => {
          holding = false;
          client.write(chunk);
        });
      else client.write(chunk);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = new URL(databaseUrl);
  url.port = String((server.address() as AddressInfo).port);
  return {
    url: url.href,
    cutAt: (statement, when, times = 1) => {
      const isMeant = typeof statement === 'string' ? (packet: Buffer) => packet.includes(statement) : statement;
      armed = times > 0 ? { isMeant, when, times } : undefined;
    },
    cuts: () => cuts,
    letGo: () => {
      for (const pass of held.splice(0)) pass();
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
