import { vi } from 'vitest';

/** vitest gives a condition one second, in which a busy machine may not run the test at all. */
const PATIENCE_MS = 40_000;

type Options = Parameters<typeof vi.waitFor>[1];

function patient(options: Options): Options {
  return typeof options === 'number' ? options : { timeout: PATIENCE_MS, ...options };
}

const { waitFor, waitUntil } = vi;
// Files share the process, and each loads this module's effect once.
if (!('isPatient' in vi)) {
  Object.assign(vi, {
    isPatient: true,
    waitFor: ((callback, options) => waitFor(callback, patient(options))) satisfies typeof waitFor,
    waitUntil: ((callback, options) => waitUntil(callback, patient(options))) satisfies typeof waitUntil,
  });
}
