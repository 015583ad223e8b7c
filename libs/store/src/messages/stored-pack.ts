import { Logger } from '@nestjs/common';
import { formatMessageId } from '@rowmq/contract';
import { type Content, decodePack } from './pack.codec.js';

/** A pack as the database returns it. */
export interface StoredPack {
  id: Buffer;
  count: number;
  payload: Buffer;
}

const logger = new Logger('StoredPack');

/**
 * Decodes one of several packs. An unreadable one must not keep back the others, so it has no
 * contents here, and the log names it.
 */
export function decodeOrLog({ id, count, payload }: StoredPack): Content[] {
  try {
    return decodePack(payload, count);
  } catch (error) {
    logger.error(`The broker cannot read pack ${formatMessageId(id)}, and skips its messages: ${String(error)}`);
    return [];
  }
}

/** Tells that a claim leased messages of these packs and could not read them. */
export function logUnread(packIds: readonly Buffer[], cause: unknown): void {
  const names = [...new Set(packIds.map((id) => formatMessageId(id)))];
  const more = names.length > 10 ? ` and ${names.length - 10} more` : '';
  logger.error(
    `The broker leased messages of packs ${names.slice(0, 10).join(', ')}${more} and could not read them: ${String(cause)}. They are ready again when their leases end.`,
  );
}
