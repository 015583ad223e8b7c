import { parse, stringify, v7 } from 'uuid';

/** Makes a message's id: a UUIDv7, 16 bytes, rising within one process. `at` (ms since 1970) is for tests that move time. */
export function newMessageId(at?: number): Buffer {
  return Buffer.from(at === undefined ? v7(undefined, new Uint8Array(16)) : v7({ msecs: at }, new Uint8Array(16)));
}

/** The id as people and JSON write it: `01890a5d-ac96-774b-bcce-b302099a8057`. */
export function formatMessageId(id: Buffer): string {
  return stringify(id);
}

/** Reads what {@link formatMessageId} writes. Throws TypeError for anything else. */
export function parseMessageId(text: string): Buffer {
  return Buffer.from(parse(text));
}

/** The broker's clock when it stamped this id, in ms since 1970: a UUIDv7's first 48 bits. */
export function messageIdTime(id: Buffer): number {
  return id.readUIntBE(0, 6);
}

/** The lowest id that a message stamped at `time` (ms since 1970) can have: a range of ids is a range of time. */
export function lowestMessageId(time: number): Buffer {
  const id = Buffer.alloc(16);
  id.writeUIntBE(time, 0, 6);
  return id;
}
