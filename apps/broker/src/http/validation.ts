import { StandardSchemaValidationPipe } from '@nestjs/common';
import { invalidRequest } from '@rowmq/contract';

/**
 * Nest's pipe deletes fields named `constructor` and `prototype` before it validates. A header of
 * that name would be lost quietly, and an unknown field would pass.
 */
class WholeValuePipe extends StandardSchemaValidationPipe {
  protected override stripProtoKeys(): void {}
}

/**
 * Validates every parameter that has a schema. The refusal, `invalid-request`, names each fault and
 * its path.
 */
export function createValidationPipe(): StandardSchemaValidationPipe {
  return new WholeValuePipe({
    exceptionFactory: (issues) =>
      invalidRequest(
        issues.map((issue) => ({
          path: (issue.path ?? []).map((segment) => (typeof segment === 'object' ? segment.key : segment)),
          message: issue.message,
          // Zod's issues have more than the standard asks for.
          keys: (issue as { keys?: readonly string[] }).keys,
        })),
      ),
  });
}
