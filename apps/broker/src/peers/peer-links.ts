import { Agent } from 'node:http';
import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import type { Peer } from '@rowmq/store';
import type { Peers } from '../messages/peers.js';
import { Metrics } from '../metrics/metrics.js';
import { HintCounts } from './hint-counts.js';
import { MOST_QUEUES } from './hint.js';
import { PeerLink, type Ready } from './peer-link.js';
import { sendHint } from './send-hint.js';

/**
 * A message that finds no parked consumers anywhere is remembered this long. Consumers may have
 * looked just before it, and their announcement may be on its way. By then their poll has run.
 */
const MISSED_MS = 250;

/**
 * Tells other brokers of ready messages. A hint goes to one peer with parked consumers, the one
 * that got none for the longest time. If they do not want all messages, that peer hints the next.
 */
@Injectable()
export class PeerLinks implements Peers, OnApplicationShutdown {
  /** By the peer's id. The first was not hinted for the longest time. */
  private readonly links = new Map<string, PeerLink>();
  /** Messages that found nobody parked, by queue. The first entry is the oldest. */
  private readonly missed = new Map<string, { at: number; messages: number }>();
  private readonly agent = new Agent({ keepAlive: true, maxSockets: 1 });

  constructor(
    private readonly counts: HintCounts,
    metrics: Metrics,
  ) {
    metrics.gauge('rowmq_peers', 'Other live brokers that this one knows', () => this.links.size, 'max');
  }

  wake(queueName: string, messages: number): void {
    if (this.links.size === 0) return;
    for (const [id, link] of this.links) {
      if (!link.wake(queueName, messages)) continue;
      this.links.delete(id);
      this.links.set(id, link);
      return;
    }
    const before = this.takeMissed(queueName);
    if (this.missed.size >= MOST_QUEUES) this.missed.delete(this.missed.keys().next().value as string);
    this.missed.set(queueName, { at: performance.now(), messages: before + messages });
  }

  parked(queueName: string): void {
    for (const link of this.links.values()) link.announce(queueName);
  }

  /** Whether hints from this peer come from somebody known. */
  knows(id: string): boolean {
    return this.links.has(id);
  }

  /** A peer says that consumers of these queues are parked there. */
  parkedAt(id: string, queueNames: readonly string[]): void {
    const link = this.links.get(id);
    if (link === undefined) return;
    for (const queueName of queueNames) {
      link.isParkedThere(queueName);
      const messages = this.takeMissed(queueName);
      if (messages > 0) link.wake(queueName, messages);
    }
  }

  /** A peer sent a hint for this queue. */
  hintedBy(id: string, queueName: string): void {
    this.links.get(id)?.isHinted(queueName);
  }

  /** Takes over the list of live peers, and tells each of them where consumers are parked. */
  update(self: Pick<Peer, 'id'>, live: readonly Peer[], parkedQueues: readonly string[]): void {
    const ids = new Set(live.map(({ id }) => id));
    for (const id of this.links.keys()) if (!ids.has(id)) this.links.delete(id);
    for (const peer of live) {
      const known = this.links.get(peer.id);
      const link = known ?? this.linkTo(self.id, peer);
      link.renew(parkedQueues);
      // The peer learns of this process at once, and says where its own consumers are parked.
      if (known === undefined) link.greet();
    }
  }

  onApplicationShutdown(): void {
    this.links.clear();
    this.agent.destroy();
  }

  private linkTo(from: string, peer: Peer): PeerLink {
    const link = new PeerLink(
      async (lists) => {
        try {
          await sendHint(this.agent, peer, { from, ...lists });
          this.counts.count('sent');
        } catch (error) {
          this.counts.count('failed');
          throw error;
        }
      },
      (ready: Ready) => {
        for (const [queueName, messages] of ready) this.wake(queueName, messages);
      },
    );
    this.links.set(peer.id, link);
    return link;
  }

  /** The number of messages that lately found nobody parked. It forgets them. */
  private takeMissed(queueName: string): number {
    const missed = this.missed.get(queueName);
    this.missed.delete(queueName);
    return missed === undefined || performance.now() - missed.at > MISSED_MS ? 0 : missed.messages;
  }
}
