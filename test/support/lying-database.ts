import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { createConnection, type RowDataPacket } from 'mysql2/promise';

const HEADER_BYTES = 4;

/** A proxy in front of a real server that announces another product in its place. */
export interface LyingDatabase {
  /** The database's URL through the proxy. */
  url: string;
  close(): Promise<void>;
}

/**
 * Answers `SELECT VERSION(), @@version_comment` as this product would. It lets everything else
 * pass, so all other answers are the real server's.
 */
export async function startLyingDatabase(
  databaseUrl: string,
  { version, comment }: { version: string; comment: string },
): Promise<LyingDatabase> {
  const honest = await identify(databaseUrl);
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(Number(target.port), target.hostname);
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(one);
      one.on('error', () => undefined);
      one.on('close', () => {
        sockets.delete(one);
        other.destroy();
      });
    }
    client.pipe(upstream);
    let pending = Buffer.alloc(0);
    upstream.on('data', (chunk: Buffer) => {
      pending = Buffer.concat([pending, chunk]);
      for (let packet = firstPacket(pending); packet !== undefined; packet = firstPacket(pending)) {
        pending = pending.subarray(packet.length);
        const isRow = packet.subarray(HEADER_BYTES).equals(honest);
        client.write(isRow ? withPayload(packet, row(version, comment)) : packet);
      }
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = new URL(databaseUrl);
  url.port = String((server.address() as AddressInfo).port);
  return {
    url: url.href,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

async function identify(url: string): Promise<Buffer> {
  const connection = await createConnection({ uri: url });
  try {
    const [[found]] = await connection.query<RowDataPacket[]>(
      'SELECT VERSION() AS version, @@version_comment AS comment',
    );
    return row(found?.['version'] as string, found?.['comment'] as string);
  } finally {
    await connection.end();
  }
}

/** A row of texts in MySQL's protocol. Each has less than 251 bytes. */
function row(...texts: string[]): Buffer {
  return Buffer.concat(texts.flatMap((text) => [Buffer.from([Buffer.byteLength(text)]), Buffer.from(text)]));
}

function firstPacket(bytes: Buffer): Buffer | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const length = HEADER_BYTES + bytes.readUIntLE(0, 3);
  return bytes.length < length ? undefined : bytes.subarray(0, length);
}

function withPayload(packet: Buffer, payload: Buffer): Buffer {
  const header = Buffer.from(packet.subarray(0, HEADER_BYTES));
  header.writeUIntLE(payload.length, 0, 3);
  return Buffer.concat([header, payload]);
}
