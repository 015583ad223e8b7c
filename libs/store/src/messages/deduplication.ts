import { hash } from 'node:crypto';
import { IDEMPOTENCY_SECONDS, RowmqError } from '@rowmq/contract';
import type { Database } from '../database/database.js';
import type { Statement } from '../database/session.js';
import type { Queue } from '../queues/queue.js';
import type { Topic } from '../topics/topic.js';
import {
  type DeduplicationRecord,
  KINDS,
  nameOf,
  type NewRecord,
  type RecordKey,
  selectLive,
} from './deduplication.sql.js';
import type { NewMessage } from './new-message.js';
import { decodeAnswer, encodeAnswer, type EnqueuedMessage } from './recorded-answer.js';

/** An enqueue waits this long for another transaction that enqueues the same. */
export const SAME_ENQUEUE_SECONDS = 2;

/** The queue or the topic that remembers ids and keys. */
export interface Scope extends Pick<Queue, 'id' | 'name' | 'deduplicationSeconds'> {
  what: 'queue' | 'topic';
}

export function inQueue({ id, name, deduplicationSeconds }: Queue): Scope {
  return { what: 'queue', id, name, deduplicationSeconds };
}

export function inTopic({ id, name, deduplicationSeconds }: Topic): Scope {
  return { what: 'topic', id, name, deduplicationSeconds };
}

export interface Request<Sent = NewMessage> {
  messages: readonly Sent[];
  idempotencyKey?: string | undefined;
}

/** A message that is to be stored. It has its id after it was packed. */
export interface Storable {
  id?: Buffer;
  /** The number of queues that get it. Absent: it is enqueued, in one queue. */
  subscriptions?: number;
}

/** A message of an answer. */
export interface Slot {
  message: Storable;
  duplicate: boolean;
}

/** How a request is carried out. */
export interface Plan<Message> {
  /** The request's messages, in order. */
  answer: readonly Slot[];
  /** The part of them that is stored. */
  messages: Message[];
  /** The records of its first uses. They can be made after the messages were packed. */
  records: () => NewRecord[];
  /** Later requests of the batch can repeat these. */
  uses: { key?: KeyUse | undefined; ids: ReadonlyMap<string, Message> };
}

type KeyUse = RecordKey & { requestDigest: Buffer };

/** A live record is in the way of a batch, so the batch has to read it. Nothing is stored. */
export class RecordMet extends Error {
  /** @param isOpen its transaction may still be open */
  constructor(
    cause: unknown,
    readonly isOpen = false,
  ) {
    super('A deduplicationId or an Idempotency-Key was used before.', { cause });
  }
}

/** Whether a request has a deduplicationId or an Idempotency-Key. */
export function isDeduplicated({ idempotencyKey, messages }: Request): boolean {
  return idempotencyKey !== undefined || messages.some(({ deduplicationId }) => deduplicationId !== undefined);
}

/** The messages of a plan that was carried out. */
export function toAnswer({ answer }: Pick<Plan<unknown>, 'answer'>): EnqueuedMessage[] {
  return answer.map(({ message, duplicate }) => ({ id: message.id as Buffer, duplicate }));
}

/**
 * All that one batch knows of earlier uses of its deduplicationIds and Idempotency-Keys: those that
 * it has read from the database, and those of its own requests.
 *
 * A batch does not look before it stores. The database refuses the batch if a record is live
 * (`refuseLive`). Only then does the batch read, plan again with what it knows, and store the rest.
 */
export class Deduplication<Message extends Storable> {
  private readonly recorded = new Map<string, DeduplicationRecord>();
  /** Records of transactions that had not ended when the batch read them. */
  private readonly open = new Set<string>();
  private ownKeys = new Map<string, { requestDigest: Buffer; answer: readonly Slot[] }>();
  private ownIds = new Map<string, Message>();
  /** Whether the batch has read the records. A request is refused only then: it may be a repeat. */
  hasRead = false;

  /** Forgets the batch's own uses: nothing of it was stored. */
  startRound(): void {
    this.ownKeys = new Map();
    this.ownIds = new Map();
  }

  /** Takes over what was read. @param open records of transactions that have not ended */
  learn(records: readonly DeduplicationRecord[], open: readonly DeduplicationRecord[] = []): void {
    this.hasRead = true;
    this.open.clear();
    for (const record of records) this.recorded.set(nameOf(record), record);
    for (const record of open) if (!this.recorded.has(nameOf(record))) this.open.add(nameOf(record));
  }

  /**
   * Plans a request. Its own uses count for later requests after {@link accept}.
   *
   * Throws `idempotency-key-reused` and `enqueue-in-progress`, and the errors of `make`.
   * @param make prepares a message that is to be stored
   */
  plan<Sent extends NewMessage>(
    scope: Scope,
    request: Request<Sent>,
    make: (message: Sent, index: number) => Message,
  ): Plan<Message> {
    const key = keyOf(scope, request);
    const repeated = key === undefined ? undefined : this.repeated(key, scope);
    const ids = new Map<string, Message>();
    if (repeated !== undefined) return { answer: repeated, messages: [], records: () => [], uses: { ids } };
    const records: (() => NewRecord)[] = [];
    const answer = request.messages.map((message, index): Slot & { message: Message | Storable } => {
      if (message.deduplicationId === undefined) return { message: make(message, index), duplicate: false };
      const id = recordKey('deduplicationId', scope, message.deduplicationId);
      const first = this.firstOf(id) ?? ids.get(nameOf(id));
      if (first !== undefined) return { message: first, duplicate: true };
      const made = make(message, index);
      ids.set(nameOf(id), made);
      records.push(() => ({
        ...id,
        requestDigest: null,
        answer: toRecord([{ message: made, duplicate: false }]),
        seconds: scope.deduplicationSeconds,
      }));
      return { message: made, duplicate: false };
    });
    const messages = answer.filter(({ duplicate }) => !duplicate).map(({ message }) => message as Message);
    if (key !== undefined) {
      const seconds = Math.max(scope.deduplicationSeconds, IDEMPOTENCY_SECONDS);
      records.push(() => ({ ...key, answer: toRecord(answer), seconds }));
    }
    return { answer, messages, records: () => records.map((record) => record()), uses: { key, ids } };
  }

  /** Lets later requests of the batch be repeats of this one. */
  accept({ answer, uses: { key, ids } }: Plan<Message>): void {
    if (key !== undefined) this.ownKeys.set(nameOf(key), { requestDigest: key.requestDigest, answer });
    for (const [name, message] of ids) this.ownIds.set(name, message);
  }

  /** The answer to the first request with this key, if there was one. */
  private repeated(key: KeyUse, scope: Scope): readonly Slot[] | undefined {
    const name = nameOf(key);
    const recorded = this.recorded.get(name);
    const own = this.ownKeys.get(name);
    const first = recorded?.requestDigest ?? own?.requestDigest;
    if (first === undefined) {
      if (this.open.has(name)) throw inProgress('Idempotency-Key');
      return undefined;
    }
    if (!first.equals(key.requestDigest)) throw keyReused(scope);
    if (recorded === undefined) return own?.answer;
    return decodeAnswer(recorded.answer).map(({ duplicate, ...message }) => ({ message, duplicate }));
  }

  /** The first message with this id, if there was one. */
  private firstOf(id: RecordKey): Message | Storable | undefined {
    const name = nameOf(id);
    const recorded = this.recorded.get(name);
    if (recorded !== undefined) return decodeAnswer(recorded.answer)[0];
    if (this.open.has(name)) throw inProgress('deduplicationId');
    return this.ownIds.get(name);
  }
}

/** The keys of all records that a request may write. */
export function recordKeys(scope: Scope, request: Request): RecordKey[] {
  const ids = new Set(request.messages.flatMap(({ deduplicationId }) => deduplicationId ?? []));
  const keys = Array.from(ids, (id) => recordKey('deduplicationId', scope, id));
  const { idempotencyKey } = request;
  return idempotencyKey === undefined ? keys : [recordKey('idempotencyKey', scope, idempotencyKey), ...keys];
}

/** Reads the live records of a batch that met one. */
export async function readRecords(
  database: Database,
  keys: readonly RecordKey[],
  { isOpen }: RecordMet,
): Promise<{ live: DeduplicationRecord[]; open: DeduplicationRecord[] }> {
  const select = selectLive(keys);
  const answers = await database.all(isOpen ? [SEE_UNCOMMITTED, select, select] : [select]);
  const [live, open = []] = answers.toReversed() as [DeduplicationRecord[], DeduplicationRecord[]?];
  return { live, open: isOpen ? open : [] };
}

/**
 * The next statement sees what other transactions have written and not committed. It tells which of
 * a batch's records made it wait.
 */
const SEE_UNCOMMITTED: Statement = { sql: 'SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED' };

export function keyOf(scope: Scope, { idempotencyKey, messages }: Request): KeyUse | undefined {
  if (idempotencyKey === undefined) return undefined;
  return { ...recordKey('idempotencyKey', scope, idempotencyKey), requestDigest: digestOf(messages) };
}

function recordKey(kind: 'deduplicationId' | 'idempotencyKey', { what, id }: Scope, text: string): RecordKey {
  return { kind: KINDS[what][kind], scopeId: id, digest: shortHash(text) };
}

/** An answer as a record has it. */
function toRecord(answer: readonly Slot[]): Buffer {
  return encodeAnswer(
    answer.map(({ message: { id, subscriptions = 1 }, duplicate }) => ({ id: id as Buffer, duplicate, subscriptions })),
  );
}

/**
 * Tells whether two requests ask for the same. Absent fields do not count, nor does the order of
 * fields and headers: some languages write a map in another order each time.
 */
function digestOf(messages: readonly NewMessage[]): Buffer {
  const parts = messages.flatMap(({ body, headers, ...rest }) => {
    const fields = Object.entries(rest).filter(([, value]) => value !== undefined);
    const shape = [body.length, headers?.length ?? null, fields.toSorted(([one], [other]) => (one < other ? -1 : 1))];
    return [Buffer.from(JSON.stringify(shape)), body, headers === null ? NOTHING : inOrder(headers)];
  });
  return shortHash(Buffer.concat(parts));
}

/** Headers as JSON, in the order of their names. */
function inOrder(headers: Buffer): Buffer {
  const entries = Object.entries(JSON.parse(headers.toString()) as Record<string, unknown>);
  return Buffer.from(JSON.stringify(Object.fromEntries(entries.toSorted(([one], [other]) => (one < other ? -1 : 1)))));
}

const NOTHING = Buffer.alloc(0);
const DIGEST_BYTES = 16;

function shortHash(data: string | Buffer): Buffer {
  return hash('sha256', data, 'buffer').subarray(0, DIGEST_BYTES);
}

function keyReused({ what, name }: Scope): RowmqError {
  return new RowmqError(
    'idempotency-key-reused',
    `The Idempotency-Key belongs to another request to ${what} '${name}', with other messages, so nothing was stored; send it only to repeat a request, and make a new one for each other request.`,
  );
}

export function inProgress(what: string, cause?: unknown): RowmqError {
  return new RowmqError(
    'enqueue-in-progress',
    `Another transaction has enqueued with this ${what} and has not ended within ${SAME_ENQUEUE_SECONDS} s, so nothing was stored; try again. If it persists, look for a transaction that somebody forgot to end.`,
    { cause, retryAfterSeconds: 1 },
  );
}
