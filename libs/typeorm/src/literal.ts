/**
 * Puts the values of a statement into its text. Libraries differ in their placeholders, and in the
 * types of values that they take. These literals mean the same in every `sql_mode` and character
 * set. RowMQ's statements have no other question marks.
 */
export function withLiterals(sql: string, values: readonly unknown[]): string {
  let used = 0;
  const text = sql.replaceAll('?', () => literal(values[used++]));
  if (used !== values.length) throw new Error(`A statement has ${used} placeholders for ${values.length} values.`);
  return text;
}

function literal(value: unknown): string {
  if (value === null) return 'NULL';
  if (typeof value === 'number' && Number.isFinite(value)) return String(value);
  if (typeof value === 'string') return `_utf8mb4 x'${Buffer.from(value).toString('hex')}'`;
  if (Buffer.isBuffer(value)) return `x'${value.toString('hex')}'`;
  if (Array.isArray(value) && value.length > 0) return value.map(literal).join(',');
  throw new TypeError(`A statement cannot hold a value of type ${typeof value}.`);
}

/** A quoted name, in every `sql_mode`. */
export function quotedName(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``;
}
