import { describe, expect, it } from 'vitest';
import { CommandFailed } from '../exit-codes.js';
import type { Session } from '../session.js';
import type { BrowsedMessage } from '../types.js';
import { browse } from './peek.js';

/** A session on a broker that has these pages, each with so many messages. */
function paged(pages: (page: number) => { messages: number; isLast: boolean }) {
  let asked = 0;
  const client = {
    browse: async () => {
      asked += 1;
      const { messages, isLast } = pages(asked);
      return { messages: Array.from({ length: messages }, () => ({})), nextAfter: isLast ? null : `after-${asked}` };
    },
  };
  return { session: { client } as unknown as Session, asked: () => asked };
}

async function search(session: Session, limit: number): Promise<{ found: number; error?: unknown }> {
  const seen: BrowsedMessage[] = [];
  try {
    for await (const message of browse(session, 'orders', { state: 'ready' }, limit)) seen.push(message);
    return { found: seen.length };
  } catch (error) {
    return { found: seen.length, error };
  }
}

describe('a search through a queue', () => {
  it('that ends before the queue does gives what it found, and then fails', async () => {
    const { session, asked } = paged((page) => ({ messages: page === 3 ? 2 : 0, isLast: false }));
    const { found, error } = await search(session, 20);
    expect(found).toBe(2);
    expect(error).toBeInstanceOf(CommandFailed);
    expect(error).toMatchObject({ exitCode: 1, message: expect.stringMatching(/ended after 600 pages.*has more/) });
    expect(asked()).toBe(600);
  });

  it('does not fail at the end of the queue, not even on its last page, nor with all that was asked for', async () => {
    const atEnd = paged((page) => ({ messages: 0, isLast: page === 600 }));
    expect(await search(atEnd.session, 20)).toEqual({ found: 0 });
    const enough = paged(() => ({ messages: 10, isLast: false }));
    expect(await search(enough.session, 20)).toEqual({ found: 20 });
    expect(enough.asked()).toBe(2);
  });
});
