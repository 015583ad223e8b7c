import { Global, Module } from '@nestjs/common';
import { PEERS } from '../messages/peers.js';
import { MessagesModule } from '../messages/messages.module.js';
import { ConsumersController } from './consumers.controller.js';
import { DatabaseController } from './database.controller.js';
import { HintCounts } from './hint-counts.js';
import { PeerLinks } from './peer-links.js';
import { PeersService } from './peers.service.js';

/** The hints to other brokers. It is global because messages know only their own port `PEERS`. */
@Global()
@Module({
  providers: [HintCounts, PeerLinks, { provide: PEERS, useExisting: PeerLinks }],
  exports: [HintCounts, PeerLinks, PEERS],
})
export class PeerLinksModule {}

/**
 * The other brokers on the same database: they wake each other's consumers, and tell who these are.
 */
@Module({
  imports: [MessagesModule, PeerLinksModule],
  controllers: [ConsumersController, DatabaseController],
  providers: [PeersService],
})
export class PeersModule {}
