import type { BrowsedMessage } from '../types.js';
import type { LeasedMessage } from '@rowmq/contract';
import { inert } from './inert.js';
import type { Output } from './output.js';
import { age, ago } from './units.js';

interface Content {
  id: string;
  body: string;
  bodyEncoding: 'utf8' | 'base64';
  headers: Record<string, string>;
  groupId?: string | undefined;
  enqueuedAt: string;
}

/** A body as people read it: JSON indented, binary as hex, control characters written out. */
export function bodyText({ body, bodyEncoding }: Pick<Content, 'body' | 'bodyEncoding'>): string {
  if (bodyEncoding === 'base64') return hexDump(Buffer.from(body, 'base64'));
  try {
    const value: unknown = JSON.parse(body);
    return inert(typeof value === 'object' ? JSON.stringify(value, null, 2) : body);
  } catch {
    return inert(body);
  }
}

const HEX_BYTES = 512;

function hexDump(bytes: Buffer): string {
  const lines: string[] = [];
  for (let at = 0; at < Math.min(bytes.length, HEX_BYTES); at += 16) {
    const part = [...bytes.subarray(at, at + 16)];
    const hex = part.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const shown = part.map((byte) => (byte >= 32 && byte < 127 ? String.fromCodePoint(byte) : '.')).join('');
    lines.push(`${at.toString(16).padStart(4, '0')}  ${hex.padEnd(47)}  ${shown}`);
  }
  if (bytes.length > HEX_BYTES) lines.push(`… ${bytes.length - HEX_BYTES} bytes more`);
  return lines.join('\n');
}

/** The bytes of a body, for another program. */
export function bodyBytes({ body, bodyEncoding }: Pick<Content, 'body' | 'bodyEncoding'>): Buffer {
  return Buffer.from(body, bodyEncoding === 'base64' ? 'base64' : 'utf8');
}

/** The first line of a body, for a table. */
export function bodyLine({ body, bodyEncoding }: Pick<Content, 'body' | 'bodyEncoding'>): string {
  return bodyEncoding === 'utf8' ? body : `0x${Buffer.from(body, 'base64').toString('hex')}`;
}

/** A message that was received, with its receipt. */
export function leasedText(out: Output, message: LeasedMessage): string {
  const { id, receipt, receiveCount, leaseExpiresAt } = message;
  return blockOf(out, message, [
    ['message', id],
    ['receipt', receipt],
    ['received', `${receiveCount} ${receiveCount === 1 ? 'time' : 'times'}, leased until ${leaseExpiresAt}`],
  ]);
}

/** A message in a queue that nobody received by this look. */
export function browsedText(out: Output, message: BrowsedMessage): string {
  const { id, state, receiveCount, lastNackReason, moves, source, consumer, expiresAt, availableAt } = message;
  return blockOf(out, message, [
    ['message', id],
    ['state', state === 'ready' || state === 'expired' ? state : `${state} until ${availableAt}`],
    ['received', `${receiveCount} ${receiveCount === 1 ? 'time' : 'times'}`],
    ['held by', consumer ?? undefined],
    ['failed', lastNackReason ?? undefined],
    ['comes from', source ?? undefined],
    ...moves.map(({ from, at, cause, receiveCount: times, reason }): [string, string] => [
      'moved',
      `${ago(at)} from ${from ?? 'a deleted queue'}: ${cause} after ${times} receives${reason === null ? '' : `, ${reason}`}`,
    ]),
    ['expires', expiresAt],
  ]);
}

function blockOf(out: Output, message: Content, first: readonly (readonly [string, string | undefined])[]): string {
  const headers = Object.entries(message.headers);
  const facts = out.fields([
    ...first,
    [
      'enqueued',
      `${message.enqueuedAt} (${age(Math.max(0, (Date.now() - Date.parse(message.enqueuedAt)) / 1000))} ago)`,
    ],
    ['group', message.groupId],
    ...headers.map(([name, value]): [string, string] => ['header', `${name}: ${value}`]),
  ]);
  return `${facts}\n\n${bodyText(message)}\n`;
}
