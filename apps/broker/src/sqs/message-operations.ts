import { Inject, Injectable } from '@nestjs/common';
import { encodeReceipt, type FailedReceipt, formatMessageId, LIMITS, type ReceiptErrorCode } from '@rowmq/contract';
import { type EnqueuedMessage, type LateWish, type Queue, QueueRepository } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { UnreadAnswers } from '../http/unread-answers.js';
import { KnownConsumers } from '../messages/known-consumers.js';
import { LeaseHolders } from '../messages/lease-holders.js';
import { MessagesService } from '../messages/messages.service.js';
import { BatchResult, checkEntries } from './batch-entries.js';
import { readWanted, toIncoming } from './incoming-message.js';
import { type Outgoing, toOutgoing } from './outgoing-message.js';
import { messageBytesOf } from './queue-attributes.js';
import { invalidHandle, readHandle, writeHandle } from './receipt-handle.js';
import { sequenceNumberOf } from './sequence-number.js';
import { type Operations, queueOf, type SqsContext } from './sqs-context.js';
import { invalidValue, required, SqsError } from './sqs-error.js';
import { settingsOf } from './sqs-settings.js';

const MOST_RECEIVED = 10;
/** All messages of a batch together, as AWS has it. */
const MOST_BATCH_BYTES = 1_048_576;
/** A lease lasts at least so long. A receive that wants none gives the messages back at once. */
const SHORTEST_LEASE_SECONDS = 1;

/** Messages: send, receive, delete, and change their visibility. */
@Injectable()
export class MessageOperations {
  constructor(
    private readonly queues: QueueRepository,
    private readonly messages: MessagesService,
    private readonly consumers: KnownConsumers,
    private readonly holders: LeaseHolders,
    private readonly unread: UnreadAnswers,
    @Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'sizes'>,
  ) {}

  readonly operations: Operations<
    | 'SendMessage'
    | 'SendMessageBatch'
    | 'ReceiveMessage'
    | 'DeleteMessage'
    | 'DeleteMessageBatch'
    | 'ChangeMessageVisibility'
    | 'ChangeMessageVisibilityBatch'
  > = {
    SendMessage: async ({ QueueUrl, ...sent }, context) => {
      const queue = await this.queues.get(queueOf({ QueueUrl }, context));
      const outgoing = toOutgoing(sent, this.placeOf(queue, context));
      const [stored] = await this.messages.store(queue.name, [outgoing.message], context.caller.name);
      return toSent(queue, outgoing, stored as EnqueuedMessage);
    },
    SendMessageBatch: async ({ QueueUrl, Entries }, context) => {
      const queue = await this.queues.get(queueOf({ QueueUrl }, context));
      const entries = checkEntries(Entries);
      const result = new BatchResult();
      const place = { ...this.placeOf(queue, context), isBatch: true };
      const valid: { id: string; outgoing: Outgoing }[] = [];
      for (const { Id: id, ...sent } of entries) {
        try {
          valid.push({ id, outgoing: toOutgoing(sent, place) });
        } catch (error) {
          result.fail(id, error);
        }
      }
      const bytes = valid.reduce((sum, { outgoing }) => sum + outgoing.bytes, 0);
      if (bytes > MOST_BATCH_BYTES)
        throw new SqsError(
          'BatchRequestTooLong',
          `Batch requests cannot be longer than ${MOST_BATCH_BYTES} bytes. You have sent ${bytes} bytes.`,
        );
      if (valid.length > 0) {
        const made = valid.map(({ outgoing }) => outgoing.message);
        const stored = await this.messages.store(queue.name, made, context.caller.name);
        for (const [index, { id, outgoing }] of valid.entries())
          result.add(id, toSent(queue, outgoing, stored[index] as EnqueuedMessage));
      }
      return result.toAnswer();
    },
    ReceiveMessage: async (input, context) => {
      const { MaxNumberOfMessages: maxMessages = 1, VisibilityTimeout: visibility, WaitTimeSeconds: wait } = input;
      const queue = await this.queues.get(queueOf(input, context));
      checkRange(maxMessages, 'MaxNumberOfMessages', 1, MOST_RECEIVED, 'Must be between 1 and 10, if provided.');
      checkRange(wait, 'WaitTimeSeconds', 0, LIMITS.waitSeconds, 'Must be >= 0 and <= 20, if provided.');
      checkVisibility(visibility);
      const wanted = readWanted(input);
      this.unread.refuseIfFull();
      const settings = settingsOf(queue);
      const leaseSeconds = visibility ?? (settings.isVisibleAtOnce === true ? 0 : undefined);
      const { client, caller, address, ip, userAgent } = context;
      const consumer = this.consumers.see(queue.name, userAgent, ip);
      consumer.waiting += 1;
      try {
        const demand = {
          maxMessages,
          waitSeconds: wait ?? settings.waitSeconds ?? 0,
          leaseSeconds: leaseSeconds === 0 ? SHORTEST_LEASE_SECONDS : leaseSeconds,
          caller: caller.name,
        };
        const leased = await this.messages.receive(queue.name, demand, client.hungUp);
        if (leased.length === 0) return {};
        const receipts = leased.map((message) => encodeReceipt(message));
        if (leaseSeconds === 0) await this.messages.expose(queue.name, leased);
        else
          this.holders.record(
            consumer,
            receipts.map((receipt) => ({ receipt })),
          );
        const hasMoved = leased.some(({ moves }) => moves !== null);
        const names = hasMoved ? await this.queues.names() : new Map<number, string>();
        return { Messages: leased.map((message) => toIncoming(message, { queue, address, wanted, names })) };
      } finally {
        consumer.waiting -= 1;
      }
    },
    DeleteMessage: async ({ ReceiptHandle, ...input }, context) => {
      const queue = await this.queues.get(queueOf(input, context));
      const handle = required(ReceiptHandle, 'ReceiptHandle');
      const [error] = await this.delete(queue, [readHandle(handle, queue.id)]);
      if (error !== undefined) throw error;
      return undefined;
    },
    DeleteMessageBatch: async ({ Entries, ...input }, context) => {
      const queue = await this.queues.get(queueOf(input, context));
      return this.perEntry(queue, checkEntries(Entries), async (receipts) => this.delete(queue, receipts));
    },
    ChangeMessageVisibility: async ({ ReceiptHandle, VisibilityTimeout, ...input }, context) => {
      const queue = await this.queues.get(queueOf(input, context));
      const handle = required(ReceiptHandle, 'ReceiptHandle');
      const visibility = required(VisibilityTimeout, 'VisibilityTimeout');
      checkVisibility(visibility);
      const [error] = await this.changeVisibility(queue, [readHandle(handle, queue.id)], visibility);
      if (error !== undefined) throw error;
      return undefined;
    },
    ChangeMessageVisibilityBatch: async ({ Entries, ...input }, context) => {
      const queue = await this.queues.get(queueOf(input, context));
      const entries = checkEntries(Entries);
      return this.perEntry(queue, entries, async (receipts, some) => {
        const errors: (SqsError | undefined)[] = [];
        for (const [index, receipt] of receipts.entries()) {
          try {
            const visibility = required(some[index]?.VisibilityTimeout, 'VisibilityTimeout');
            checkVisibility(visibility);
            errors.push(...(await this.changeVisibility(queue, [receipt], visibility)));
          } catch (error) {
            if (!(error instanceof SqsError)) throw error;
            errors.push(error);
          }
        }
        return errors;
      });
    },
  };

  private placeOf(queue: Queue, { accessKey }: SqsContext) {
    return { queue, messageBytes: messageBytesOf(queue, this.config.sizes), sender: accessKey };
  }

  /** Carries out a verb on the receipts of a batch, and answers for each entry. */
  private async perEntry<Entry extends { Id: string; ReceiptHandle?: string | undefined }>(
    queue: Queue,
    entries: readonly Entry[],
    verb: (receipts: string[], entries: readonly Entry[]) => Promise<(SqsError | undefined)[]>,
  ): Promise<Record<string, unknown>> {
    const result = new BatchResult();
    const valid: { entry: Entry; receipt: string }[] = [];
    const refused = new Map<string, unknown>();
    for (const entry of entries) {
      try {
        valid.push({ entry, receipt: readHandle(required(entry.ReceiptHandle, 'ReceiptHandle'), queue.id) });
      } catch (error) {
        refused.set(entry.Id, error);
      }
    }
    const errors =
      valid.length === 0
        ? []
        : await verb(
            valid.map(({ receipt }) => receipt),
            valid.map(({ entry }) => entry),
          );
    for (const [index, { entry }] of valid.entries()) {
      const error = errors[index];
      if (error !== undefined) refused.set(entry.Id, error);
    }
    for (const { Id } of entries) {
      if (refused.has(Id)) result.fail(Id, refused.get(Id));
      else result.add(Id);
    }
    return result.toAnswer();
  }

  /** Settles messages. A message that is gone, or that somebody else holds, is no error. */
  private async delete(queue: Queue, receipts: string[]): Promise<(SqsError | undefined)[]> {
    const { failed } = await this.messages.ack(queue.name, receipts);
    await this.tryLate(queue, failed, 'settle');
    return outcomes(receipts, failed, (receipt, code) => {
      const handle = writeHandle(queue.id, receipt);
      if (code === 'invalid-request') return invalidHandle(handle);
      if (code === 'lease-lost' && queue.ordering !== null)
        return invalidValue(handle, 'ReceiptHandle', 'The receipt handle has expired.');
      return undefined;
    });
  }

  /** On standard queues, a late receipt works until somebody else gets the message. */
  private async tryLate(
    { name, ordering }: Queue,
    failed: readonly FailedReceipt[],
    wish: LateWish,
  ): Promise<ReadonlySet<string>> {
    const late = failed.filter(({ code }) => code === 'lease-lost').map(({ receipt }) => receipt);
    if (late.length === 0 || ordering !== null) return new Set();
    return this.messages.late(name, late, wish);
  }

  private async changeVisibility(queue: Queue, receipts: string[], seconds: number): Promise<(SqsError | undefined)[]> {
    const { failed } =
      seconds === 0
        ? await this.messages.nack(queue.name, { receipts, delaySeconds: 0, deadLetter: false, keepsReceipts: true })
        : await this.messages.extend(queue.name, receipts, seconds);
    const late = await this.tryLate(queue, failed, { leaseSeconds: seconds });
    return outcomes(receipts, failed, (receipt, code) => {
      if (late.has(receipt)) return undefined;
      const handle = writeHandle(queue.id, receipt);
      if (code === 'invalid-request') return invalidHandle(handle);
      // The change of another message of the group may have ended this timeout too.
      if (code === 'lease-lost' && queue.ordering !== null && seconds === 0) return undefined;
      return invalidValue(
        handle,
        'ReceiptHandle',
        'Message does not exist or is not available for visibility timeout change.',
      );
    });
  }
}

function outcomes(
  receipts: readonly string[],
  failed: readonly FailedReceipt[],
  errorOf: (receipt: string, code: ReceiptErrorCode) => SqsError | undefined,
): (SqsError | undefined)[] {
  const codes = new Map(failed.map(({ receipt, code }) => [receipt, code]));
  return receipts.map((receipt) => {
    const code = codes.get(receipt);
    return code === undefined ? undefined : errorOf(receipt, code);
  });
}

function toSent({ ordering }: Queue, { digests }: Outgoing, { id }: EnqueuedMessage): Record<string, unknown> {
  return {
    MessageId: formatMessageId(id),
    ...digests,
    ...(ordering !== null && { SequenceNumber: sequenceNumberOf(id) }),
  };
}

function checkVisibility(seconds: number | undefined): void {
  checkRange(seconds, 'VisibilityTimeout', 0, LIMITS.leaseSeconds, 'Must be between 0 and 43200, if provided.');
}

function checkRange(value: number | undefined, name: string, min: number, max: number, reason: string): void {
  if (value === undefined || (value >= min && value <= max)) return;
  throw invalidValue(value, name, reason);
}
