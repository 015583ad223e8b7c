import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  type BeforeApplicationShutdown,
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import { Database } from '@rowmq/store';
import { REAPER_CONFIG, type ReaperConfig } from './reaper.config.js';

const PING_MS = 2000;
/** A probe sends its request at once. A client that takes longer is cut off. */
const REQUEST_MS = 5000;

/**
 * Answers probes at `ROWMQ_REAPER_PORT`, as a broker does: `/health/live` whether the process runs,
 * and `/health/ready` whether it reaches its database. A reaper that stands by is ready, too.
 */
@Injectable()
export class HealthService implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private readonly logger = new Logger(HealthService.name);
  private server: Server | undefined;

  constructor(
    private readonly database: Database,
    @Inject(REAPER_CONFIG) private readonly config: Pick<ReaperConfig, 'host' | 'port'>,
  ) {}

  /** Throws if the port is in use. */
  async onApplicationBootstrap(): Promise<void> {
    const { host, port } = this.config;
    if (port === undefined) return;
    this.server = createServer({ requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS }, (request, response) => {
      void this.answer(request.url, response);
    });
    this.server.listen(port, host);
    await once(this.server, 'listening');
    const { address, port: taken } = this.server.address() as AddressInfo;
    this.logger.log(`answers probes at ${address} port ${taken}`);
  }

  beforeApplicationShutdown(): void {
    this.server?.close();
    this.server?.closeAllConnections();
  }

  private async answer(url: string | undefined, response: ServerResponse): Promise<void> {
    if (url === '/health/live') return send(response, 200, 'ok');
    if (url !== '/health/ready') return send(response, 404, 'The paths are /health/live and /health/ready.');
    try {
      await this.database.ping(PING_MS);
    } catch (error) {
      return send(response, 503, error instanceof Error ? error.message : String(error));
    }
    send(response, 200, 'ok');
  }
}

function send(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ status: text }));
}
