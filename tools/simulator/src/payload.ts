import { crc32 } from 'node:zlib';
import type { EnqueueRequest, LeasedMessage } from '@rowmq/contract';
import type { Random } from './random.js';

type Message = EnqueueRequest['messages'][number];

/** Checksums of a message, to compare with its delivery. */
export interface Content {
  bodyCrc: number;
  /** Covers the headers, by name, and the priority. */
  headersCrc: number;
}

/** The header that names the message within its run: `<run>.<number>`. */
export const KEY_HEADER = 'rowmq-sim';

const FILLER_BYTES = 8192;
const CHARACTERS = ['a', 'Z', '7', ' ', '"', '\\', '\n', '\u0000', 'é', 'ß', '漢', '🐘', '\u2028', '</script>'];
const BINARY_SHARE = 0.2;
const UNICODE_SHARE = 0.4;

/**
 * Makes the bodies and headers of one producer. Bodies are ASCII, awkward Unicode or arbitrary
 * bytes, of `minBytes` to `maxBytes`.
 */
export class Payloads {
  readonly #random: Random;
  readonly #bytes: Buffer;
  readonly #ascii: string;
  readonly #unicode: UnicodeFiller;
  readonly #minBytes: number;
  readonly #maxBytes: number;

  constructor(random: Random, minBytes: number, maxBytes: number) {
    this.#random = random;
    this.#minBytes = minBytes;
    this.#maxBytes = maxBytes;
    this.#bytes = Buffer.from(Uint8Array.from({ length: FILLER_BYTES }, () => random.between(0, 255)));
    this.#ascii = String.fromCharCode(...Array.from({ length: FILLER_BYTES }, () => random.between(32, 126)));
    this.#unicode = new UnicodeFiller(random);
  }

  /** The next message, marked with `key`, and its checksums. */
  make(key: string, priority: number): { message: Message; content: Content } {
    const headers: Record<string, string> = { [KEY_HEADER]: key };
    if (this.#random.happens(0.5)) headers['content-type'] = 'text/plain; charset="utf-8"';
    if (this.#random.happens(0.2)) headers['très-été'] = '漢字 🐘 \\ "';
    const body = this.#body();
    const content = { bodyCrc: crc32(body), headersCrc: headersCrc(headers, priority) };
    if (typeof body === 'string') return { message: { body, headers, priority }, content };
    return { message: { body: body.toString('base64'), bodyEncoding: 'base64', headers, priority }, content };
  }

  #body(): string | Buffer {
    const size = this.#random.between(this.#minBytes, this.#maxBytes);
    const kind = this.#random.next();
    if (kind < UNICODE_SHARE) return this.#unicode.text(this.#random.next(), size);
    const at = this.#random.between(0, FILLER_BYTES - size);
    return kind < UNICODE_SHARE + BINARY_SHARE ? this.#bytes.subarray(at, at + size) : this.#ascii.slice(at, at + size);
  }
}

/** A long awkward text. It can be cut between characters into pieces of any size in bytes. */
class UnicodeFiller {
  readonly #text: string;
  /** Per character: where it begins, in UTF-16 units and in bytes. */
  readonly #units: number[] = [];
  readonly #bytes: number[] = [];

  constructor(random: Random) {
    let text = '';
    for (let bytes = 0; bytes < 2 * FILLER_BYTES;) {
      const character = random.pick(CHARACTERS);
      this.#units.push(text.length);
      this.#bytes.push(bytes);
      text += character;
      bytes += Buffer.byteLength(character);
    }
    this.#text = text;
  }

  /** `size` bytes from somewhere in the first half; `where` in [0, 1) says where. */
  text(where: number, size: number): string {
    const first = Math.floor((where * this.#bytes.length) / 3);
    const start = this.#bytes[first] ?? 0;
    let [low, high] = [first, this.#bytes.length - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if ((this.#bytes[middle] ?? 0) - start <= size) low = middle;
      else high = middle - 1;
    }
    const cut = this.#text.slice(this.#units[first], this.#units[low]);
    return cut + 'x'.repeat(size - ((this.#bytes[low] ?? 0) - start));
  }
}

/** Checksums of a delivered message. */
export function contentOf(message: LeasedMessage): Content {
  return {
    bodyCrc: crc32(message.bodyEncoding === 'base64' ? Buffer.from(message.body, 'base64') : message.body),
    headersCrc: headersCrc(message.headers, message.priority),
  };
}

function headersCrc(headers: Record<string, string>, priority: number): number {
  const byName = Object.entries(headers).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return crc32(JSON.stringify([priority, ...byName]));
}
