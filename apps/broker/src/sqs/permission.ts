import { isObject, readObject } from './json-object.js';
import { SqsError } from './sqs-error.js';

/** A statement of a queue's Policy. */
export interface Statement {
  Sid?: string;
  [member: string]: unknown;
}

/** The Policy of a queue, which nothing enforces. */
export interface PolicyDocument {
  Version: string;
  Id: string;
  Statement: Statement[];
}

/** The statement that AddPermission adds. */
export function permission(
  label: string,
  accounts: readonly string[],
  actions: readonly string[],
  resource: string,
): Statement {
  const one = <T>(values: readonly T[]): T | readonly T[] => (values.length === 1 ? (values[0] as T) : values);
  return {
    Sid: label,
    Effect: 'Allow',
    Principal: { AWS: one(accounts.map((account) => `arn:aws:iam::${account}:root`)) },
    Action: one(actions.map((action) => `SQS:${action}`)),
    Resource: resource,
  };
}

/** Reads a Policy. Throws `InvalidAttributeValue` unless it and its statements are objects. */
export function readPolicy(text: string): Partial<PolicyDocument> & Pick<PolicyDocument, 'Statement'> {
  const policy = readObject(text);
  const statements: unknown[] = [policy?.['Statement'] ?? []].flat();
  if (policy === undefined || !statements.every(isObject))
    throw new SqsError('InvalidAttributeValue', 'Invalid value for the parameter Policy.');
  return { ...policy, Statement: statements };
}
