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
