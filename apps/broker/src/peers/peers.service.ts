import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type BeforeApplicationShutdown,
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import { type Peer, PeerRepository } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { KnownConsumers } from '../messages/known-consumers.js';
import { WaitingConsumers } from '../messages/waiting-consumers.js';
import { Pressure } from '../metrics/pressure.js';
import { HintCounts } from './hint-counts.js';
import { HintListener } from './hint-listener.js';
import type { Hint } from './hint.js';
import { PeerLinks } from './peer-links.js';

/** Several heartbeats fit the silence after which peers take a broker for gone. */
const HEARTBEAT_MS = 3000;
/** An unknown broker causes a heartbeat at once, but not many. */
const SHORTEST_GAP_MS = 200;

/**
 * This process as a peer: it registers, takes hints, and knows the other brokers while it runs.
 * Without the database it keeps the peers that it knew.
 */
@Injectable()
export class PeersService implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private readonly logger = new Logger(PeersService.name);
  private readonly listener: HintListener;
  private self: Peer | undefined;
  private timer: NodeJS.Timeout | undefined;
  private beat: Promise<void> | undefined;
  private beatAt = -Infinity;

  constructor(
    private readonly repository: PeerRepository,
    private readonly links: PeerLinks,
    private readonly consumers: WaitingConsumers,
    @Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'peerHost' | 'peerPort'>,
    counts: HintCounts,
    known: KnownConsumers,
    private readonly pressure: Pressure,
  ) {
    this.listener = new HintListener(
      (hint) => void this.receive(hint),
      counts,
      (queue) => known.of(queue),
    );
  }

  async onApplicationBootstrap(): Promise<void> {
    const url = await this.listener.listen(this.config.peerHost, this.config.peerPort);
    this.self = { id: randomUUID(), url, token: this.listener.token };
    this.logger.log(`takes hints of other brokers at ${url}`);
    await this.heartbeat();
  }

  /** Outgoing hints stay: a stopping broker releases messages, and other consumers want them. */
  async beforeApplicationShutdown(): Promise<void> {
    clearTimeout(this.timer);
    const { self } = this;
    this.self = undefined;
    if (self === undefined) return;
    await this.beat;
    await this.listener.close();
    // Otherwise the row becomes stale, and a peer removes it.
    await this.repository.forget(self.id).catch(() => undefined);
  }

  /** Callers share a heartbeat. */
  private async heartbeat(): Promise<void> {
    clearTimeout(this.timer);
    this.beat ??= this.findPeers().finally(() => {
      this.beat = undefined;
      if (this.self !== undefined) this.timer = setTimeout(() => void this.heartbeat(), HEARTBEAT_MS).unref();
    });
    await this.beat;
  }

  /** Never rejects. */
  private async findPeers(): Promise<void> {
    await sleep(Math.max(0, this.beatAt + SHORTEST_GAP_MS - performance.now()));
    this.beatAt = performance.now();
    if (this.self === undefined) return;
    try {
      const live = await this.repository.heartbeat(this.self, this.pressure.level());
      this.links.update(this.self, live, this.consumers.parkedQueues());
    } catch {
      // The database's health is logged where it is observed. The next heartbeat tries again.
    }
  }

  /** Never rejects. */
  private async receive({ from, ready, parked }: Hint): Promise<void> {
    for (const { queue, messages } of ready) {
      this.links.hintedBy(from, queue);
      this.consumers.wakeFromPeer(queue, messages ?? Infinity);
    }
    // A broker that has just started. The database says who it is.
    if (!this.links.knows(from)) await this.heartbeat();
    this.links.parkedAt(from, parked);
  }
}
