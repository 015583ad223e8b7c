import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import { type KeyScope, reaches, RowmqError } from '@rowmq/contract';

/** The API key that makes a call, and its rights. */
export class Caller {
  /**
   * @param name the key's name; null: the broker asks for no keys
   * @param patterns names of queues and topics that it reaches, as patterns; none: all
   */
  constructor(
    readonly name: string | null,
    readonly scopes: readonly (KeyScope | 'all')[],
    readonly patterns: readonly string[] = [],
  ) {}

  /** Whether it reaches every queue and topic. */
  get reachesAll(): boolean {
    return this.patterns.length === 0;
  }

  /** Whether it reaches a queue or a topic of this name. */
  reaches(name: string): boolean {
    return reaches(this.patterns, name);
  }

  /** Throws `forbidden` if it does not reach a queue or a topic of this name. */
  mustReach(name: string): void {
    if (this.reaches(name)) return;
    throw this.refusal(
      `does not reach the queue or topic '${name}', but only ${this.patterns.join(', ')}. Use a key whose patterns reach it`,
    );
  }

  /** Throws `forbidden` if it has patterns. */
  mustReachAll(): void {
    if (this.reachesAll) return;
    throw this.refusal(
      `only reaches ${this.patterns.join(', ')}, and this call concerns every queue. Use a key without patterns`,
    );
  }

  /** Throws `forbidden` if it lacks a scope. */
  mustHave(scope: KeyScope): void {
    if (this.scopes.includes(scope) || this.scopes[0] === 'all') return;
    // An administrator may also see everything.
    if (scope === 'read' && this.scopes.includes('admin')) return;
    throw this.refusal(`lacks the scope ${scope}, and has only ${this.scopes.join(', ')}. Use a key that has it`);
  }

  private refusal(what: string): RowmqError {
    return new RowmqError('forbidden', `The API key '${this.name}' ${what}. Nothing was done.`);
  }
}

/** The caller of a broker that asks for no keys. */
export const ANYBODY = new Caller(null, ['all']);

/** A request as the check of keys leaves it. */
export interface CheckedRequest {
  caller: Caller | null;
}

/** Injects the {@link Caller} of the request. */
export const CalledBy = createParamDecorator((_: unknown, context: ExecutionContext): Caller => {
  const { caller } = context.switchToHttp().getRequest<CheckedRequest>();
  if (caller === null) throw new Error('The call has no caller: it declares that it needs no key.');
  return caller;
});
