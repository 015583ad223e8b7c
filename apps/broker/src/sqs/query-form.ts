import { isUtf8 } from 'node:buffer';
import { invalidParameter } from './sqs-error.js';
import type { SqsRequest } from './sqs-protocol.js';

/** Members whose values are integers. A form knows texts only. */
const INTEGERS = new Set([
  'DelaySeconds',
  'VisibilityTimeout',
  'WaitTimeSeconds',
  'MaxNumberOfMessages',
  'MaxResults',
  'MaxNumberOfMessagesPerSecond',
]);
const LISTS: Record<string, string> = {
  AttributeName: 'AttributeNames',
  MessageAttributeName: 'MessageAttributeNames',
  MessageSystemAttributeName: 'MessageSystemAttributeNames',
  TagKey: 'TagKeys',
  AWSAccountId: 'AWSAccountIds',
  ActionName: 'Actions',
};
const ENTRIES: Record<string, string> = {
  SendMessageBatchRequestEntry: 'Entries',
  DeleteMessageBatchRequestEntry: 'Entries',
  ChangeMessageVisibilityBatchRequestEntry: 'Entries',
};
/** Each with the parts of its entries that name the key and the value. */
const MAPS: Record<string, { member: string; key: string }> = {
  Attribute: { member: 'Attributes', key: 'Name' },
  Tag: { member: 'Tags', key: 'Key' },
  MessageAttribute: { member: 'MessageAttributes', key: 'Name' },
  MessageSystemAttribute: { member: 'MessageSystemAttributes', key: 'Name' },
};

/** SDKs write an empty list as one parameter, under the name that JSON has for it. */
const PLURALS = new Set([...Object.values(LISTS), ...Object.values(ENTRIES)]);

/** The deepest is an attribute of a message in a batch. */
const MOST_PARTS = 7;
/** Far more than any operation has. */
const MOST_PARAMETERS = 10_000;
/** `URLSearchParams` writes it for bytes that are not UTF-8. A form may also have it itself. */
const REPLACEMENT = '\uFFFD';
const REPLACEMENT_IN_FORM = /\uFFFD|%EF%BF%BD/i;

/** A parameter: the parts of its name, such as `Attribute`, `1`, `Name`, and its value. */
type Parameter = readonly [path: readonly string[], value: string];

/**
 * Reads a form of the Query protocol into the members that JSON would have. Throws
 * `InvalidParameterValue` for a text that is not UTF-8 or an integer, and for a form that no
 * operation can have: nobody has checked the signature yet.
 */
export function readForm(form: Buffer): SqsRequest {
  const text = form.toString();
  if (text.split('&', MOST_PARAMETERS + 1).length > MOST_PARAMETERS)
    throw invalidParameter(`The request has more than ${MOST_PARAMETERS} parameters.`);
  const parameters = [...new URLSearchParams(text)];
  if (!isUtf8(form) || isBroken(parameters, text)) throw invalidParameter('The request is not UTF-8.');
  const members = membersOf(parameters.map(([name, value]) => [partsOf(name), value]));
  const { Action, ...others } = members;
  return { operation: typeof Action === 'string' ? Action : undefined, members: others };
}

/** Whether escapes of the form were not UTF-8. */
function isBroken(parameters: readonly [string, string][], form: string): boolean {
  const decoded = parameters.flat().join('&');
  return decoded.includes(REPLACEMENT) && decoded.split(REPLACEMENT).length > form.split(REPLACEMENT_IN_FORM).length;
}

/** Each part costs a copy of those behind it. */
function partsOf(name: string): string[] {
  const parts = name.split('.', MOST_PARTS + 1);
  if (parts.length > MOST_PARTS)
    throw invalidParameter(`The parameter ${name.slice(0, 80)}… has more than ${MOST_PARTS} parts.`);
  return parts;
}

function membersOf(parameters: readonly Parameter[]): Record<string, unknown> {
  const members = new Map<string, unknown>();
  for (const [name, some] of grouped(parameters)) {
    if (Object.hasOwn(LISTS, name)) members.set(LISTS[name] as string, inOrder(some).map(firstValue));
    else if (Object.hasOwn(ENTRIES, name)) members.set(ENTRIES[name] as string, inOrder(some).map(membersOf));
    else if (Object.hasOwn(MAPS, name)) {
      const { member, key } = MAPS[name] as { member: string; key: string };
      members.set(member, Object.fromEntries(inOrder(some).map((entry) => mapEntry(entry, key))));
    } else if (PLURALS.has(name)) members.set(name, []);
    else members.set(name, INTEGERS.has(name) ? integerOf(name, firstValue(some)) : firstValue(some));
  }
  return Object.fromEntries(members);
}

/** Parameters by the first part of their names, without that part. */
function grouped(parameters: readonly Parameter[]): Map<string, Parameter[]> {
  const groups = new Map<string, Parameter[]>();
  for (const [[name = '', ...rest], value] of parameters) {
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [[rest, value]]);
    else group.push([rest, value]);
  }
  return groups;
}

/** The entries of a list in the order of their numbers: they may come in any. */
function inOrder(parameters: readonly Parameter[]): Parameter[][] {
  return [...grouped(parameters)].toSorted(([one], [other]) => Number(one) - Number(other)).map(([, entry]) => entry);
}

/** An entry of a map: a text, or an object such as the value of a message attribute. */
function mapEntry(parameters: readonly Parameter[], key: string): [string, unknown] {
  const parts = grouped(parameters);
  const value = parts.get('Value') ?? [];
  const isObject = value.some(([path]) => path.length > 0);
  return [firstValue(parts.get(key) ?? []), isObject ? membersOf(value) : firstValue(value)];
}

function firstValue(parameters: readonly Parameter[]): string {
  return parameters[0]?.[1] ?? '';
}

function integerOf(name: string, text: string): number {
  if (/^-?\d{1,15}$/.test(text)) return Number(text);
  throw invalidParameter(`Value ${text} for parameter ${name} is invalid. Reason: Must be an integer.`);
}
