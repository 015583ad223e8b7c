/** A body as the page shows it. Every form is plain text. */
export interface ShownBody {
  readonly kind: 'JSON' | 'text' | 'binary' | 'empty';
  readonly text: string;
  readonly bytes: number;
}

const BYTES_PER_LINE = 16;
/** Bytes that a hex dump shows. */
const MOST_DUMPED = 16_384;

/** JSON indented, other text as it is, and bytes as a hex dump. */
export function showBody(body: string, encoding: 'utf8' | 'base64'): ShownBody {
  if (body === '') return { kind: 'empty', text: '', bytes: 0 };
  if (encoding === 'base64') {
    const bytes = Uint8Array.from(atob(body), (char) => char.charCodeAt(0));
    return { kind: 'binary', text: hexDump(bytes), bytes: bytes.length };
  }
  const bytes = new TextEncoder().encode(body).length;
  const isJson = /^\s*[[{]/.test(body) && isValidJson(body);
  return isJson ? { kind: 'JSON', text: visible(indent(body)), bytes } : { kind: 'text', text: visible(body), bytes };
}

function isValidJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

const TOKEN = /"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s[\]{},:"]+/g;

/**
 * Indents JSON and leaves every token as it is. JSON.parse and JSON.stringify would change long
 * numbers, and show an id that no system has.
 */
export function indent(json: string): string {
  let depth = 0;
  let result = '';
  const line = (): string => `\n${'  '.repeat(depth)}`;
  let before = '';
  for (const [token] of json.matchAll(TOKEN)) {
    if (token === '}' || token === ']') {
      depth -= 1;
      result += before === '{' || before === '[' ? token : line() + token;
    } else {
      if (before === '{' || before === '[' || before === ',') result += line();
      result += token === ':' ? ': ' : token;
      if (token === '{' || token === '[') depth += 1;
    }
    before = token;
  }
  return result;
}

/** Shows characters that would hide or reorder the text around them. */
export function visible(text: string): string {
  return text.replaceAll(
    // oxlint-disable-next-line no-control-regex -- these are the characters to show
    /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g,
    (char) => `⟨U+${char.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}⟩`,
  );
}

/** Offset, bytes and ASCII, 16 bytes a line. */
export function hexDump(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < Math.min(bytes.length, MOST_DUMPED); at += BYTES_PER_LINE) {
    const part = [...bytes.subarray(at, at + BYTES_PER_LINE)];
    const hex = part.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const ascii = part.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
    lines.push(`${at.toString(16).padStart(6, '0')}  ${hex.padEnd(BYTES_PER_LINE * 3 - 1)}  ${ascii}`);
  }
  if (bytes.length > MOST_DUMPED) lines.push(`… and ${bytes.length - MOST_DUMPED} bytes more`);
  return lines.join('\n');
}
