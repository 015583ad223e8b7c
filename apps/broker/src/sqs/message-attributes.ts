import { createHash } from 'node:crypto';
import type { StoredHeader } from '@rowmq/contract';
import { invalidParameter } from './sqs-error.js';
import type { MessageAttribute } from './sqs-input.js';
import { isSqsText } from './sqs-text.js';

const MOST_ATTRIBUTES = 10;
const MOST_CHARS = 256;
const NAME = /^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*$/;
/** AWS keeps these for itself. */
const RESERVED = /^(?:aws|amazon)\./i;
const TYPE = /^(?:String|Number|Binary)(?:\..+)?$/;
/** `\d+\.?\d*` would try every way to cut a long value in two. */
const NUMBER = /^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$/;
const BASE64 = /^([A-Za-z0-9+/]+)={0,2}$/;

/**
 * The stored form of a message's attributes. Throws `InvalidParameterValue` as SQS does.
 *
 * @param given undefined: the message has none
 */
export function readAttributes(given: Record<string, MessageAttribute> | undefined): Map<string, StoredHeader> {
  const entries = Object.entries(given ?? {});
  if (entries.length > MOST_ATTRIBUTES)
    throw invalidParameter(
      `Number of message attributes [${entries.length}] exceeds the allowed maximum [${MOST_ATTRIBUTES}].`,
    );
  return new Map(entries.map(([name, attribute]) => [name, readAttribute(name, attribute)]));
}

function readAttribute(name: string, { DataType: type, StringValue, BinaryValue }: MessageAttribute): StoredHeader {
  if (name.length > MOST_CHARS)
    throw invalidParameter(
      `Message (user) attribute name '${name.slice(0, 40)}…' is too long: at most ${MOST_CHARS} characters.`,
    );
  if (!NAME.test(name) || RESERVED.test(name))
    throw invalidParameter(
      `The message attribute name '${name}' is invalid. Attribute name can contain A-Z, a-z, 0-9, underscore (_), hyphen (-), and period (.) characters. It must not begin with AWS. or Amazon., and no period may be first, last or doubled.`,
    );
  if (type === undefined || type === '')
    throw invalidParameter(`The message attribute '${name}' must contain a non-empty message attribute type.`);
  if (!TYPE.test(type) || type.length > MOST_CHARS || !isSqsText(type))
    throw invalidParameter(
      `The message attribute '${name}' has an invalid message attribute type, the set of supported type prefixes is Binary, Number, and String.`,
    );
  const isBinary = type.startsWith('Binary');
  const value = isBinary ? BinaryValue?.replaceAll(/\s+/g, '') : StringValue;
  if (value === undefined || value === '')
    throw invalidParameter(
      `The message attribute '${name}' must contain a non-empty message attribute value for message attribute type '${type}'.`,
    );
  if (isBinary) {
    const [, digits = ''] = BASE64.exec(value) ?? [];
    // A last digit alone has six bits, and so is no byte.
    if (digits === '' || digits.length % 4 === 1)
      throw invalidParameter(`The message attribute '${name}' has a binary value that is not base64.`);
    return [type, Buffer.from(value, 'base64').toString('base64')];
  }
  if (!isSqsText(value)) throw invalidParameter(`The message attribute '${name}' has characters that are not allowed.`);
  if (type.startsWith('Number') && !NUMBER.test(value))
    throw invalidParameter(`Can't cast the value of message (user) attribute '${name}' to a number.`);
  return type === 'String' ? value : [type, value];
}

/** The attribute as an answer has it. */
export function toAnswer(value: StoredHeader): Record<string, string> {
  const [type, text] = typedOf(value);
  return type.startsWith('Binary') ? { BinaryValue: text, DataType: type } : { StringValue: text, DataType: type };
}

function typedOf(value: StoredHeader): readonly [type: string, text: string] {
  return typeof value === 'string' ? ['String', value] : value;
}

function bytesOf(value: StoredHeader): Buffer {
  const [type, text] = typedOf(value);
  return Buffer.from(text, type.startsWith('Binary') ? 'base64' : 'utf8');
}

/** The bytes that attributes add to the size of their message. */
export function sizeOf(attributes: ReadonlyMap<string, StoredHeader>): number {
  let bytes = 0;
  for (const [name, value] of attributes)
    bytes += Buffer.byteLength(name) + Buffer.byteLength(typedOf(value)[0]) + bytesOf(value).length;
  return bytes;
}

/** The MD5 that SDKs compare with their own. Undefined: there are no attributes. */
export function digestOf(attributes: ReadonlyMap<string, StoredHeader>): string | undefined {
  if (attributes.size === 0) return undefined;
  const hash = createHash('md5');
  const length = Buffer.alloc(4);
  const add = (bytes: Buffer): void => {
    length.writeUInt32BE(bytes.length);
    hash.update(length).update(bytes);
  };
  for (const name of [...attributes.keys()].toSorted()) {
    const value = attributes.get(name) as StoredHeader;
    const [type] = typedOf(value);
    add(Buffer.from(name));
    add(Buffer.from(type));
    hash.update(type.startsWith('Binary') ? BINARY : TEXT);
    add(bytesOf(value));
  }
  return hash.digest('hex');
}

const TEXT = Buffer.from([1]);
const BINARY = Buffer.from([2]);

/**
 * The attributes that a receive asks for: names, `prefix.*`, or all. REST may have stored headers
 * with characters that SQS cannot carry: such a value is binary here, and such a name is left out.
 */
export function select(
  attributes: ReadonlyMap<string, StoredHeader>,
  names: readonly string[],
): Map<string, StoredHeader> {
  if (names.length === 0 || attributes.size === 0) return new Map();
  const isWanted = (attribute: string): boolean =>
    names.some((name) => {
      if (name === 'All' || name === '.*' || name === '*') return true;
      return name.endsWith('.*') ? attribute.startsWith(name.slice(0, -1)) : attribute === name;
    });
  const wanted = [...attributes].filter(([name]) => isSqsText(name) && isWanted(name));
  return new Map(wanted.map(([name, value]) => [name, carried(value)]));
}

function carried(value: StoredHeader): StoredHeader {
  return typeof value !== 'string' || isSqsText(value) ? value : ['Binary', Buffer.from(value).toString('base64')];
}
