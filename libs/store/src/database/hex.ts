/** Formats bytes as a SQL literal. */
export function hex(bytes: Buffer): string {
  return `x'${bytes.toString('hex')}'`;
}

/** Formats a list of byte strings for `IN (…)`. */
export function hexList(list: readonly Buffer[]): string {
  return list.map(hex).join(',');
}
