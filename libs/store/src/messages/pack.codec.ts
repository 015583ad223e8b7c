/**
 * The format of a pack's payload, read and written only here:
 *
 *     version (1 byte: 1)
 *     for each message, in the order of their indexes:
 *       length of the headers (varint; 0 if there are none), length of the body (varint)
 *     for each message: the headers (a JSON object of strings), then the body
 *
 * A varint has seven bits a byte, the lowest first; the highest bit says that another byte follows
 * (LEB128). All lengths come first, so that one message is found without reading the others.
 */
const VERSION = 1;

/** A message's stored bytes. */
export interface Content {
  body: Buffer;
  /** A JSON object of strings, or null. */
  headers: Buffer | null;
}

/**
 * The most bytes of a payload with several messages. Two rows of this size fit an InnoDB page of 16
 * KiB, so no payload goes to overflow pages. A larger message is a pack of its own.
 */
export const PACK_BYTES = 7900;

/** The bytes that a message adds to its pack. */
export function contentBytes({ body, headers }: Content): number {
  const headerBytes = headers?.length ?? 0;
  return varintBytes(headerBytes) + varintBytes(body.length) + headerBytes + body.length;
}

export function encodePack(contents: readonly Content[]): Buffer {
  const payload = Buffer.allocUnsafe(contents.reduce((sum, content) => sum + contentBytes(content), 1));
  let at = payload.writeUInt8(VERSION, 0);
  for (const { headers, body } of contents) {
    at = writeVarint(payload, at, headers?.length ?? 0);
    at = writeVarint(payload, at, body.length);
  }
  for (const { headers, body } of contents) {
    if (headers !== null) at += headers.copy(payload, at);
    at += body.copy(payload, at);
  }
  return payload;
}

/**
 * Reads a payload of so many messages. The contents share the payload's memory. Throws RangeError
 * for bytes that {@link encodePack} cannot have written.
 */
export function decodePack(payload: Buffer, count: number): Content[] {
  if (payload[0] !== VERSION) throw new RangeError(`a pack of version ${payload[0]}; this program reads version 1`);
  const reader = { payload, at: 1 };
  const lengths = Array.from({ length: count }, () => [readVarint(reader), readVarint(reader)] as const);
  let { at } = reader;
  const take = (bytes: number): Buffer => payload.subarray(at, (at += bytes));
  const contents = lengths.map(([headers, body]) => ({
    headers: headers === 0 ? null : take(headers),
    body: take(body),
  }));
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
