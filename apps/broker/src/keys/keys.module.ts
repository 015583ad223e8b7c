import { Module } from '@nestjs/common';
import { MessagesModule } from '../messages/messages.module.js';
import { FailedAttempts } from './failed-attempts.js';
import { KeysController } from './keys.controller.js';
import { KnownKeys } from './known-keys.js';

/** API keys: their administration, and the check of every request. */
@Module({
  imports: [MessagesModule],
  controllers: [KeysController],
  providers: [KnownKeys, FailedAttempts],
})
export class KeysModule {}
