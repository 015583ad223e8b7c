import { isDeepStrictEqual } from 'node:util';
import { createParamDecorator, type ExecutionContext } from '@nestjs/common';

/** A field before and after an action. Absent: it was not there. */
export interface Change {
  from?: unknown;
  to?: unknown;
}

/**
 * The changes of one admin action, for the audit. A handler reports them if it knows any. The audit
 * covers the action even if it does not.
 */
export class Changes {
  /** Null: none was reported. */
  fields: Record<string, Change> | null = null;

  /**
   * Reports an object before and after the action. Null: it did not exist. Fields that are equal
   * are left out. Neither may hold a secret or the body of a message.
   */
  report(before: object | null, after: object | null): void {
    this.fields ??= {};
    const names = new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})]);
    for (const name of names) {
      const from = (before as Record<string, unknown> | null)?.[name];
      const to = (after as Record<string, unknown> | null)?.[name];
      if (isDeepStrictEqual(from, to)) continue;
      this.fields[name] = { ...(from !== undefined && { from }), ...(to !== undefined && { to }) };
    }
  }

  /** Reports the outcome of an action that changes no settings, such as a number of messages. */
  outcome(fields: object): void {
    this.report(null, fields);
  }
}

/** A request whose action is audited. */
export interface AuditedRequest {
  changes: Changes | null;
}

/** Injects the {@link Changes} of the request. */
export const Audited = createParamDecorator((_: unknown, context: ExecutionContext): Changes => {
  const request = context.switchToHttp().getRequest<AuditedRequest>();
  return (request.changes ??= new Changes());
});
