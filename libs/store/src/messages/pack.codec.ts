/**
 * The format of a pack's payload, read and written only here:
 *
 *     version (1 byte): 1; 2 for replayed messages; 3 for messages with group ids; 4 for both
 *     for each message, in the order of their indexes:
 *       length of the headers (varint; 0 if there are none), length of the body (varint); in
 *       versions 3 and 4 the length of the group id (varint)
 *     for each message: in versions 2 and 4 the id of its original (16 bytes); the headers (a JSON
 *       object of strings), then the body; in versions 3 and 4 the group id
 *
 * A varint has seven bits a byte, the lowest first; the highest bit says that another byte follows
 * (LEB128). All lengths come first, so that one message is found without reading the others.
 */
const VERSION = 1;
const REPLAYED = 2;
const GROUPED = 3;
const REPLAYED_AND_GROUPED = 4;
const VERSIONS = [VERSION, REPLAYED, GROUPED, REPLAYED_AND_GROUPED];
const ID_BYTES = 16;

/** A message's stored bytes. */
export interface Content {
  body: Buffer;
  /** A JSON object of strings, or null. */
  headers: Buffer | null;
  /** The id of the message of which this is a replay. All messages of a pack have one, or none. */
  replayOf?: Buffer | undefined;
  /** In ordered queues. All messages of a pack have one, or none. */
  groupId?: string | undefined;
}

/**
 * The most bytes of a payload with several messages: 32 messages of 4 KiB with short headers fit. A
 * larger message is a pack of its own. A claim reads whole packs, also for one of their messages.
 */
export const PACK_BYTES = 140_000;

/** The bytes that a message adds to its pack. */
export function contentBytes({ body, headers, replayOf, groupId }: Content): number {
  const headerBytes = headers?.length ?? 0;
  const idBytes = replayOf === undefined ? 0 : ID_BYTES;
  const bytes = idBytes + varintBytes(headerBytes) + varintBytes(body.length) + headerBytes + body.length;
  if (groupId === undefined) return bytes;
  const groupBytes = Buffer.byteLength(groupId);
  return bytes + varintBytes(groupBytes) + groupBytes;
}

function versionOf({ replayOf, groupId }: Content): number {
  if (groupId === undefined) return replayOf === undefined ? VERSION : REPLAYED;
  return replayOf === undefined ? GROUPED : REPLAYED_AND_GROUPED;
}

export function encodePack(contents: readonly Content[]): Buffer {
  const payload = Buffer.allocUnsafe(contents.reduce((sum, content) => sum + contentBytes(content), 1));
  let at = payload.writeUInt8(contents[0] === undefined ? VERSION : versionOf(contents[0]), 0);
  for (const { headers, body, groupId } of contents) {
    at = writeVarint(payload, at, headers?.length ?? 0);
    at = writeVarint(payload, at, body.length);
    if (groupId !== undefined) at = writeVarint(payload, at, Buffer.byteLength(groupId));
  }
  for (const { replayOf, headers, body, groupId } of contents) {
    if (replayOf !== undefined) at += replayOf.copy(payload, at);
    if (headers !== null) at += headers.copy(payload, at);
    at += body.copy(payload, at);
    if (groupId !== undefined) at += payload.write(groupId, at);
  }
  return payload;
}

/**
 * Reads a payload of so many messages. The contents share the payload's memory. Throws RangeError
 * for bytes that {@link encodePack} cannot have written.
 */
export function decodePack(payload: Buffer, count: number): Content[] {
  const [version = 0] = payload;
  if (!VERSIONS.includes(version))
    throw new RangeError(`a pack of version ${version}; this program reads versions ${VERSIONS.join(', ')}`);
  const isReplayed = version === REPLAYED || version === REPLAYED_AND_GROUPED;
  const isGrouped = version === GROUPED || version === REPLAYED_AND_GROUPED;
  const reader = { payload, at: 1 };
  const lengths = Array.from(
    { length: count },
    () => [readVarint(reader), readVarint(reader), isGrouped ? readVarint(reader) : 0] as const,
  );
  let { at } = reader;
  const take = (bytes: number): Buffer => payload.subarray(at, (at += bytes));
  const contents = lengths.map(([headers, body, group]): Content => {
    const replayOf = isReplayed ? take(ID_BYTES) : undefined;
    const content: Content = { headers: headers === 0 ? null : take(headers), body: take(body) };
    if (replayOf !== undefined) content.replayOf = replayOf;
    if (isGrouped) content.groupId = take(group).toString();
    return content;
  });
  if (at !== payload.length) throw new RangeError(`a pack of ${payload.length} bytes whose messages have ${at}`);
  return contents;
}

function varintBytes(value: number): number {
  let bytes = 1;
  for (let left = value >>> 7; left > 0; left >>>= 7) bytes += 1;
  return bytes;
}

function writeVarint(payload: Buffer, at: number, value: number): number {
  let left = value;
  let next = at;
  for (; left > 0x7f; left >>>= 7) next = payload.writeUInt8((left & 0x7f) | 0x80, next);
  return payload.writeUInt8(left, next);
}

function readVarint(reader: { payload: Buffer; at: number }): number {
  let value = 0;
  for (let shift = 0; shift < 28; shift += 7) {
    const byte = reader.payload[reader.at];
    if (byte === undefined) break;
    reader.at += 1;
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  throw new RangeError('a pack that ends inside a length');
}
