import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { StartupError } from '@rowmq/store';
import { bearerOf, digest, isSecret } from '../http/bearer.js';
import type { HintCounts } from './hint-counts.js';
import { type Hint, HINT_PATH, hintRequest, MOST_HINT_BYTES } from './hint.js';
import { CONSUMERS_PATH, consumersQuestion, type PeerConsumer } from './question.js';

/** A hint is small, and its sender gives up after a second. */
const REQUEST_MS = 5000;
/** Longer than the heartbeats between two hints, so that peers keep their connections. */
const KEEP_ALIVE_MS = 60_000;
const MOST_CONNECTIONS = 1000;

interface Reply {
  status: number;
  body?: unknown;
}

/** Takes the hints and questions of peers, on an address of its own that no client needs. */
export class HintListener {
  /** Peers read it in the database. */
  readonly token = randomBytes(32).toString('base64url');
  private readonly expected = digest(this.token);
  private readonly server: Server;

  constructor(
    private readonly onHint: (hint: Hint) => void,
    private readonly counts: HintCounts,
    private readonly onConsumers: (queue: string) => PeerConsumer[] = () => [],
  ) {
    this.server = createServer(
      { requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS, keepAliveTimeout: KEEP_ALIVE_MS },
      (request, response) => {
        // Whatever is wrong with a request, its sender alone has to know.
        this.receive(request)
          .catch((): Reply => ({ status: 400 }))
          .then((reply) => end(response, reply))
          .catch(() => response.destroy());
      },
    );
    this.server.maxConnections = MOST_CONNECTIONS;
  }

  /** Returns the URL. Throws `StartupError`. */
  async listen(host: string, port: number): Promise<string> {
    try {
      // Exclusive: each worker has a port of its own, although they share the one of the API.
      this.server.listen({ host, port, exclusive: true });
      await once(this.server, 'listening');
    } catch (error) {
      throw new StartupError(
        `Cannot listen for the hints of other brokers: ${(error as Error).message}. Set ROWMQ_PEER_HOST to an address of this machine that the other brokers reach, and ROWMQ_PEER_PORT to a free port or 0.`,
      );
    }
    const { port: taken } = this.server.address() as AddressInfo;
    return `http://${host.includes(':') ? `[${host}]` : host}:${taken}`;
  }

  async close(): Promise<void> {
    if (!this.server.listening) return;
    const closed = once(this.server, 'close');
    this.server.close();
    this.server.closeAllConnections();
    await closed;
  }

  private async receive(request: IncomingMessage): Promise<Reply> {
    const { method, url } = request;
    if (method !== 'POST' || (url !== HINT_PATH && url !== CONSUMERS_PATH)) return { status: 404 };
    // Before the body, so that a stranger makes the broker parse nothing.
    if (!isSecret(bearerOf(request.headers.authorization), this.expected)) {
      this.counts.count('refused');
      return { status: 401 };
    }
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of request) {
      size += (chunk as Buffer).length;
      if (size > MOST_HINT_BYTES) return { status: 413 };
      chunks.push(chunk as Buffer);
    }
    const sent: unknown = JSON.parse(Buffer.concat(chunks).toString());
    if (url === CONSUMERS_PATH) {
      const consumers = this.onConsumers(consumersQuestion.parse(sent).queue);
      return { status: 200, body: { consumers } };
    }
    const hint = hintRequest.parse(sent);
    this.counts.count('received');
    this.onHint(hint);
    return { status: 204 };
  }
}

function end(response: ServerResponse, { status, body }: Reply): void {
  // The rest of a refused request is not read.
  response.writeHead(status, status < 300 ? {} : { connection: 'close' });
  response.end(body === undefined ? undefined : JSON.stringify(body));
}
