import { createRequire } from 'node:module';

const load = createRequire(import.meta.url);

/**
 * One of the packages of bench/peers/package.json; the caller says what is used of it. Not an import, because these packages are not there when the project is type-checked; and they are loaded
 * where they are used, since only one peer's belong into a client's process.
 */
export function peerPackage(name: string): unknown {
  return load(name);
}
