/**
 * The headers of a message as they are stored: a JSON object, read and written only here.
 *
 * A header is a text. An attribute of SQS that is not a `String` is an array of its type and its
 * value, a `Binary` one in base64. The empty name, which no producer can use, holds the values that
 * SQS keeps beside the attributes.
 *
 * So a message that SQS sent has headers for REST, and headers of REST are attributes for SQS.
 */
export type StoredHeader = string | readonly [type: string, value: string];

/** The values that SQS keeps of a message beside its attributes. */
export interface SystemValues {
  /** The access key of the sender. */
  sender?: string;
  deduplicationId?: string;
  traceHeader?: string;
}

/** The name of {@link SystemValues} in the stored JSON. */
const SYSTEM = '';

export interface StoredAttributes {
  attributes: Map<string, StoredHeader>;
  system: SystemValues;
}

/** Null: there is nothing to store. */
export function writeStored(attributes: ReadonlyMap<string, StoredHeader>, system: SystemValues): Buffer | null {
  const hasSystem = Object.values(system).some((value) => value !== undefined);
  if (attributes.size === 0 && !hasSystem) return null;
  const entries: [string, unknown][] = [...attributes];
  if (hasSystem) entries.unshift([SYSTEM, system]);
  return Buffer.from(JSON.stringify(Object.fromEntries(entries)));
}

export function readStored(headers: Buffer | null): StoredAttributes {
  if (headers === null) return { attributes: new Map(), system: {} };
  const stored = JSON.parse(headers.toString()) as Record<string, StoredHeader>;
  const attributes = new Map(Object.entries(stored));
  const system = attributes.get(SYSTEM) as SystemValues | undefined;
  attributes.delete(SYSTEM);
  return { attributes, system: system ?? {} };
}

/** The headers as texts: the value of each attribute, whatever its type. */
export function readHeaders(headers: Buffer | null): Record<string, string> {
  if (headers === null) return {};
  const stored = JSON.parse(headers.toString()) as Record<string, StoredHeader>;
  for (const name of Object.keys(stored)) if (typeof stored[name] !== 'string') return asTexts(stored);
  return stored as Record<string, string>;
}

function asTexts(stored: Record<string, StoredHeader>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(stored)
      .filter(([name]) => name !== SYSTEM)
      .map(([name, value]) => [name, typeof value === 'string' ? value : value[1]]),
  );
}
