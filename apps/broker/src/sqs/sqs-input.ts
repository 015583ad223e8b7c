import { z } from 'zod';
import { SqsError } from './sqs-error.js';

/*
 * The members of every request. The schemas know types only. The operations check presence and
 * values, because SQS has an error of its own for each. Unknown members are dropped: SDKs are newer
 * than servers. A member that is null is absent.
 */

function optional<T extends z.ZodType>(type: T) {
  return type.nullish().transform((value) => value ?? undefined);
}

/** Zod leaves out a member of this name, so an attribute of a message would be lost. */
const UNSAFE = '__proto__';

function mapOf<T extends z.ZodType>(type: T) {
  const isSafe = (map: unknown): boolean => typeof map !== 'object' || map === null || !Object.hasOwn(map, UNSAFE);
  return z.unknown().refine(isSafe, `No name can be ${UNSAFE}`).pipe(z.record(z.string(), type));
}

const text = optional(z.string());
const integer = optional(z.int());
const texts = optional(z.array(z.string()));
const map = optional(mapOf(z.string()));

const messageAttribute = z.object({
  DataType: text,
  StringValue: text,
  BinaryValue: text,
  StringListValues: optional(z.array(z.string())),
  BinaryListValues: optional(z.array(z.string())),
});
const messageAttributes = optional(mapOf(messageAttribute));

const sendMembers = {
  MessageBody: text,
  DelaySeconds: integer,
  MessageAttributes: messageAttributes,
  MessageSystemAttributes: messageAttributes,
  MessageGroupId: text,
  MessageDeduplicationId: text,
};
const deleteMembers = { ReceiptHandle: text };
const visibilityMembers = { ReceiptHandle: text, VisibilityTimeout: integer };
const queue = { QueueUrl: text };
const entries = <T extends z.ZodRawShape>(members: T) => optional(z.array(z.object({ Id: text, ...members })));
const page = { MaxResults: integer, NextToken: text };

export const INPUTS = {
  CreateQueue: z.object({ QueueName: text, Attributes: map, tags: map, Tags: map }),
  GetQueueUrl: z.object({ QueueName: text }),
  ListQueues: z.object({ QueueNamePrefix: text, ...page }),
  DeleteQueue: z.object(queue),
  PurgeQueue: z.object(queue),
  GetQueueAttributes: z.object({ ...queue, AttributeNames: texts }),
  SetQueueAttributes: z.object({ ...queue, Attributes: map }),
  TagQueue: z.object({ ...queue, Tags: map }),
  UntagQueue: z.object({ ...queue, TagKeys: texts }),
  ListQueueTags: z.object(queue),
  AddPermission: z.object({ ...queue, Label: text, AWSAccountIds: texts, Actions: texts }),
  RemovePermission: z.object({ ...queue, Label: text }),
  ListDeadLetterSourceQueues: z.object({ ...queue, ...page }),
  SendMessage: z.object({ ...queue, ...sendMembers }),
  SendMessageBatch: z.object({ ...queue, Entries: entries(sendMembers) }),
  ReceiveMessage: z.object({
    ...queue,
    MaxNumberOfMessages: integer,
    VisibilityTimeout: integer,
    WaitTimeSeconds: integer,
    AttributeNames: texts,
    MessageSystemAttributeNames: texts,
    MessageAttributeNames: texts,
    ReceiveRequestAttemptId: text,
  }),
  DeleteMessage: z.object({ ...queue, ...deleteMembers }),
  DeleteMessageBatch: z.object({ ...queue, Entries: entries(deleteMembers) }),
  ChangeMessageVisibility: z.object({ ...queue, ...visibilityMembers }),
  ChangeMessageVisibilityBatch: z.object({ ...queue, Entries: entries(visibilityMembers) }),
  StartMessageMoveTask: z.object({ SourceArn: text, DestinationArn: text, MaxNumberOfMessagesPerSecond: integer }),
  ListMessageMoveTasks: z.object({ SourceArn: text, MaxResults: integer }),
  CancelMessageMoveTask: z.object({ TaskHandle: text }),
} as const;

export type OperationName = keyof typeof INPUTS;
export type Input<Name extends OperationName> = z.output<(typeof INPUTS)[Name]>;
export type MessageAttribute = z.output<typeof messageAttribute>;

export function isOperation(name: string): name is OperationName {
  return Object.hasOwn(INPUTS, name);
}

/** Throws `SerializationException` if a member has another type than the operation's. */
export function readInput<Name extends OperationName>(name: Name, members: unknown): Input<Name> {
  const result = INPUTS[name].safeParse(members);
  if (result.success) return result.data as Input<Name>;
  const [{ path, message }] = result.error.issues as [z.core.$ZodIssue];
  throw new SqsError('SerializationException', `${path.join('.') || 'The request'}: ${message}.`);
}
