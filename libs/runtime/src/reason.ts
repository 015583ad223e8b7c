/** The message of an error, in one line. */
export function reason(error: unknown): string {
  if (error === undefined) return 'no answer';
  if (!(error instanceof Error)) return typeof error === 'string' ? error : JSON.stringify(error);
  if (error.message !== '') return error.message;
  // Node's error for a name with several addresses has one message for each address only.
  const each: unknown[] = error instanceof AggregateError ? error.errors : [];
  const reasons = each.map((one) => reason(one)).join(', ');
  return reasons || ((error as NodeJS.ErrnoException).code ?? error.name);
}
