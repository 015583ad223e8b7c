import type { KeyScope } from '@rowmq/contract';
import { RouteConfig } from '@nestjs/platform-fastify';

/**
 * The rights that a call needs. A broker refuses calls that declare nothing.
 */
export interface Needs {
  /**
   * The scope that the key must have. `any`: every valid key will do. `none`: the call needs no
   * key.
   */
  readonly scope: KeyScope | 'any' | 'none';
  /**
   * The parameters of the path that name queues or topics. The key's patterns must reach each of
   * them. A handler checks other names that it reaches with {@link Caller.mustReach}.
   *
   * `everything`: the key must have no patterns.
   */
  readonly reach?: readonly string[] | 'everything';
  /** The call shows the broker itself: a setting decides whether it needs a key. */
  readonly isOperation?: true;
}

/** The part of a Fastify route's configuration that says what the call needs. */
export interface NeedsConfig {
  needs: Needs;
}

/** Declares what a call needs. `ApiCall` declares it for the calls of the API. */
export function CallNeeds(needs: Needs): MethodDecorator {
  return RouteConfig({ needs } satisfies NeedsConfig);
}
