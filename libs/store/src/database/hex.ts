/** Bytes as a literal of SQL. */
export function hex(bytes: Buffer): string {
  return `x'${bytes.toString('hex')}'`;
}

/** The same of a list, for `IN (…)`. */
export function hexList(list: readonly Buffer[]): string {
  return list.map(hex).join(',');
}
