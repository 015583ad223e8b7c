import { SqsError, toSqsError } from './sqs-error.js';

const MOST_ENTRIES = 10;
const ID = /^[A-Za-z0-9_-]{1,80}$/;

interface Entry {
  Id?: string | undefined;
}

/** An entry of a batch that failed alone. */
interface Failure {
  Id: string;
  SenderFault: boolean;
  Code: string;
  Message: string;
}

/** Throws the errors that concern a batch as a whole. */
export function checkEntries<T extends Entry>(entries: readonly T[] | undefined): (T & { Id: string })[] {
  if (entries === undefined || entries.length === 0)
    throw new SqsError('EmptyBatchRequest', 'There should be at least one entry in the request.');
  if (entries.length > MOST_ENTRIES)
    throw new SqsError(
      'TooManyEntriesInBatchRequest',
      `Maximum number of entries per request are ${MOST_ENTRIES}. You have sent ${entries.length}.`,
    );
  const ids = new Set<string>();
  for (const { Id = '' } of entries) {
    if (!ID.test(Id))
      throw new SqsError(
        'InvalidBatchEntryId',
        'A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.',
      );
    if (ids.has(Id)) throw new SqsError('BatchEntryIdsNotDistinct', `Id ${Id} repeated.`);
    ids.add(Id);
  }
  return entries as (T & { Id: string })[];
}

/** The answer of a batch whose entries succeed or fail on their own. */
export class BatchResult {
  private readonly successful: Record<string, unknown>[] = [];
  private readonly failed: Failure[] = [];

  add(id: string, members: Record<string, unknown> = {}): void {
    this.successful.push({ Id: id, ...members });
  }

  fail(id: string, thrown: unknown): void {
    const error = toSqsError(thrown);
    if (!error.isSender) throw thrown;
    this.failed.push({ Id: id, SenderFault: true, Code: error.kind.code, Message: error.message });
  }

  /** AWS writes both lists in the order of the request. */
  toAnswer(): Record<string, unknown> {
    return {
      ...(this.successful.length > 0 && { Successful: this.successful }),
      ...(this.failed.length > 0 && { Failed: this.failed }),
    };
  }
}
