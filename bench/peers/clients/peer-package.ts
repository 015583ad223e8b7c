import { createRequire } from 'node:module';

const load = createRequire(import.meta.url);

/**
 * Loads one of the packages of bench/peers/package.json. The caller declares the part that it uses.
 * It is not an import, because these packages are missing when the project is type-checked. Each
 * client loads its own, since only one peer's packages belong into its process.
 */
export function peerPackage(name: string): unknown {
  return load(name);
}
