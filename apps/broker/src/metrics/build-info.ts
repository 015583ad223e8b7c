import { Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import { Database, serverKind } from '@rowmq/store';
import { VERSION } from '../http/version.js';
import { Metrics } from './metrics.js';

/** The metric that tells which versions run. */
@Injectable()
export class BuildInfo implements OnApplicationBootstrap {
  constructor(
    private readonly database: Database,
    private readonly metrics: Metrics,
  ) {}

  async onApplicationBootstrap(): Promise<void> {
    const server = await serverKind(this.database);
    this.metrics.info('rowmq_build_info', 'Always 1; the labels say which versions run', {
      version: VERSION,
      node: process.versions.node,
      server,
    });
  }
}
