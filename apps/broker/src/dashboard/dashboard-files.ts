import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

/** The files of the dashboard, which `npm run build` makes in `apps/dashboard/dist`. */
const TYPES = {
  'index.html': 'text/html; charset=utf-8',
  'app.js': 'text/javascript; charset=utf-8',
  'app.css': 'text/css; charset=utf-8',
  'icon.svg': 'image/svg+xml',
} as const;

export type FileName = keyof typeof TYPES;

/** A file as the broker sends it. */
export interface ServedFile {
  readonly type: string;
  readonly etag: string;
  readonly content: Buffer;
  readonly zipped: Buffer;
}

export function isFileName(name: string): name is FileName {
  return Object.hasOwn(TYPES, name);
}

const read = new Map<FileName, ServedFile>();

/**
 * A file, or undefined if the dashboard was not built. The names are the same in every version, so
 * a page that one broker served gets its script from another broker, also during an upgrade.
 */
export function dashboardFile(name: FileName): ServedFile | undefined {
  const known = read.get(name);
  if (known !== undefined) return known;
  let content: Buffer;
  try {
    const folder = new URL('dist/', import.meta.resolve('@rowmq/dashboard/package.json'));
    content = readFileSync(fileURLToPath(new URL(name, folder)));
  } catch {
    return undefined;
  }
  const file = {
    type: TYPES[name],
    etag: `"${createHash('sha256').update(content).digest('base64url').slice(0, 20)}"`,
    content,
    zipped: gzipSync(content, { level: 9 }),
  };
  read.set(name, file);
  return file;
}
