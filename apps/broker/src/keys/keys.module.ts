import { Module } from '@nestjs/common';
import { FailedAttempts } from './failed-attempts.js';
import { KeysController } from './keys.controller.js';
import { KnownKeys } from './known-keys.js';

/** API keys: their administration, and the check of every request. */
@Module({
  controllers: [KeysController],
  providers: [KnownKeys, FailedAttempts],
  exports: [KnownKeys, FailedAttempts],
})
export class KeysModule {}
