import { LIMITS } from '@rowmq/contract';
import { readObject } from './json-object.js';
import { nameInArn } from './queue-address.js';
import { invalidValue, SqsError } from './sqs-error.js';

/** The dead-letter queue of a queue, and when messages go there. */
export interface RedrivePolicy {
  deadLetterQueue: string;
  maxReceives: number;
}

/** Throws `InvalidParameterValue`. */
export function readRedrivePolicy(text: string): RedrivePolicy {
  const bad = (reason: string): SqsError => invalidValue(text, 'RedrivePolicy', reason);
  const policy = readObject(text);
  if (policy === undefined) throw bad('Redrive policy is not a valid JSON map.');
  const { deadLetterTargetArn, maxReceiveCount } = policy;
  if (deadLetterTargetArn === undefined)
    throw bad('Redrive policy does not contain mandatory attribute: deadLetterTargetArn.');
  if (maxReceiveCount === undefined) throw bad('Redrive policy does not contain mandatory attribute: maxReceiveCount.');
  const deadLetterQueue = typeof deadLetterTargetArn === 'string' ? nameInArn(deadLetterTargetArn) : undefined;
  if (deadLetterQueue === undefined) throw bad('Invalid value for deadLetterTargetArn.');
  const count = JSON.stringify(maxReceiveCount);
  const maxReceives = /^(?:\d{1,4}|"\d{1,4}")$/.test(count) ? Number(maxReceiveCount) : 0;
  if (maxReceives < 1 || maxReceives > LIMITS.maxReceives)
    throw bad(
      `Invalid value for maxReceiveCount: ${count}, valid values are from 1 to ${LIMITS.maxReceives} both inclusive.`,
    );
  return { deadLetterQueue, maxReceives };
}

/** The queues that may have a queue as their dead-letter queue. Undefined: all. */
export type AllowedSources = ReadonlySet<string> | undefined;

const PERMISSIONS = new Set<unknown>(['allowAll', 'denyAll', 'byQueue']);
const MOST_SOURCES = 10;

/**
 * Reads the RedriveAllowPolicy of a dead-letter queue. Throws `InvalidAttributeValue` and
 * `InvalidParameterValue` as AWS does.
 */
export function readAllowedSources(text: string): AllowedSources {
  const bad = (reason: string): SqsError =>
    invalidValue(text, 'RedriveAllowPolicy', `Amazon SQS can't create the redrive allow policy. ${reason}`);
  const { redrivePermission: permission, sourceQueueArns: arns, ...others } = readObject(text) ?? {};
  const isList = arns === undefined || (Array.isArray(arns) && arns.every((arn) => typeof arn === 'string'));
  if (!PERMISSIONS.has(permission) || !isList || Object.keys(others).length > 0)
    throw new SqsError(
      'InvalidAttributeValue',
      "Invalid value for the parameter RedriveAllowPolicy. Reason: Amazon SQS can't create the redrive allow policy, as it’s in an unsupported format.",
    );
  if (permission !== 'byQueue') {
    if (arns !== undefined)
      throw bad('To specify one or more source queue ARNs, you must set redrivePermission to byQueue.');
    return permission === 'allowAll' ? undefined : new Set();
  }
  if (arns === undefined || arns.length === 0)
    throw bad(
      'When you specify the byQueue permission type, you must also specify one or more sourceQueueArns values.',
    );
  if (arns.length > MOST_SOURCES)
    throw bad(`The maximum number of source queue ARNs you can specify is ${MOST_SOURCES}.`);
  return new Set(
    arns.map((arn) => {
      const name = nameInArn(arn);
      if (name === undefined) throw bad(`${arn} is not the ARN of a queue.`);
      return name;
    }),
  );
}
