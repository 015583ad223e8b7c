import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/**
 * The path of Helm's program: the one that HELM names, the system's, or the one that `npm test`
 * unpacked. Undefined if there is none.
 */
export function findHelm(): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), helmFolder()];
  return [process.env['HELM'] ?? '', ...folders.map((folder) => join(folder, 'helm'))].find(
    (path) => path !== '' && existsSync(path),
  );
}

/** The folder into which `npm test` unpacks Helm. */
export function helmFolder(): string {
  return join(process.env['ROWMQ_SERVERS_DIR'] || join(ROOT, '.rowmq-test', 'servers'), 'helm');
}
