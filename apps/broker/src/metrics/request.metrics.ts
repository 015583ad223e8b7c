import { type CallHandler, type ExecutionContext, Injectable, type NestInterceptor } from '@nestjs/common';
import { type Observable, tap } from 'rxjs';
import { PROBLEMS, RowmqError } from '@rowmq/contract';
import { Metrics } from './metrics.js';

/** Measures every call by its handler's name, which is its verb's. */
@Injectable()
export class RequestMetrics implements NestInterceptor {
  constructor(private readonly metrics: Metrics) {}

  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const started = performance.now();
    const observe = (status: number): void =>
      this.metrics.observe(context.getHandler().name, status, (performance.now() - started) / 1000);
    return next.handle().pipe(
      tap({
        next: () => observe(200),
        error: (error: unknown) => observe(error instanceof RowmqError ? PROBLEMS[error.code].status : 500),
      }),
    );
  }
}
