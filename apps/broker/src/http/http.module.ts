import { Global, Module } from '@nestjs/common';
import { APP_FILTER, APP_PIPE } from '@nestjs/core';
import { ProblemFilter } from './problem.filter.js';
import { RootController } from './root.controller.js';
import { UnreadAnswers } from './unread-answers.js';
import { createValidationPipe } from './validation.js';

/** Validation and errors of every call, and the page at the broker's address. */
@Global()
@Module({
  controllers: [RootController],
  providers: [
    { provide: APP_PIPE, useFactory: createValidationPipe },
    { provide: APP_FILTER, useClass: ProblemFilter },
    UnreadAnswers,
  ],
  exports: [UnreadAnswers],
})
export class HttpModule {}
