import {
  type CallHandler,
  type ExecutionContext,
  HttpException,
  Injectable,
  type NestInterceptor,
} from '@nestjs/common';
import { type Observable, tap } from 'rxjs';
import { PROBLEMS, RowmqError } from '@rowmq/contract';
import { Metrics } from './metrics.js';

function statusOf(error: unknown): number {
  if (error instanceof RowmqError) return PROBLEMS[error.code].status;
  return error instanceof HttpException ? error.getStatus() : 500;
}

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
        next: () => observe(context.switchToHttp().getResponse<{ statusCode: number }>().statusCode),
        error: (error: unknown) => observe(statusOf(error)),
      }),
    );
  }
}
