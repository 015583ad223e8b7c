import type { BrowseAnswer } from '@rowmq/contract';

/** A message as browse shows it. */
export type BrowsedMessage = BrowseAnswer['messages'][number];
