import { Module } from '@nestjs/common';
import { MessagesModule } from '../messages/messages.module.js';
import { FailedAttempts } from './failed-attempts.js';
import { KeysController } from './keys.controller.js';
import { KnownKeys } from './known-keys.js';
import { KnownSessions } from './known-sessions.js';
import { SessionController } from './session.controller.js';

/** API keys: their administration, the check of every request, and the dashboard's sessions. */
@Module({
  imports: [MessagesModule],
  controllers: [KeysController, SessionController],
  providers: [KnownKeys, KnownSessions, FailedAttempts],
  exports: [KnownKeys, FailedAttempts],
})
export class KeysModule {}
