import { StandardSchemaValidationPipe } from '@nestjs/common';
import { type Fault, RowmqError } from '@rowmq/contract';

const FAULTS_NAMED = 10;

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
    exceptionFactory: (issues) => {
      const faults: Fault[] = issues.slice(0, FAULTS_NAMED).map((issue) => ({
        path: (issue.path ?? [])
          .map((segment) => String(typeof segment === 'object' ? segment.key : segment))
          .join('.'),
        message: issue.message,
      }));
      const text = faults.map(({ path, message }) => (path === '' ? message : `${path}: ${message}`)).join('; ');
      const more = issues.length > FAULTS_NAMED ? `; and ${issues.length - FAULTS_NAMED} more` : '';
      return new RowmqError('invalid-request', `${text}${more}.`, { faults });
    },
  });
}
