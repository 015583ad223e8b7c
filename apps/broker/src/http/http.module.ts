import { Module } from '@nestjs/common';
import { APP_FILTER, APP_PIPE } from '@nestjs/core';
import { ProblemFilter } from './problem.filter.js';
import { RootController } from './root.controller.js';
import { createValidationPipe } from './validation.js';

/** Validation and errors of every call, and the page at the broker's address. */
@Module({
  controllers: [RootController],
  providers: [
    { provide: APP_PIPE, useFactory: createValidationPipe },
    { provide: APP_FILTER, useClass: ProblemFilter },
  ],
})
export class HttpModule {}
