import type { PeerClient, Plan } from './client.js';
import { Stretch, type StretchResult } from './load.js';

/** A request of the measuring process to a client process. */
export type Request =
  | { ask: 'connect'; address: string; options: Record<string, string | number> }
  | { ask: 'stretch'; plan: Plan }
  | { ask: 'close' };

/** A client's reply. Each request gets one `done` or `failed`, after its marks. */
export type Reply =
  { say: 'mark'; moment: 'begin' | 'end' } | { say: 'done'; result?: StretchResult } | { say: 'failed'; error: string };

/** Answers the process that started this one, until it says `close` or is gone. */
export function serve(client: PeerClient): void {
  const say = (reply: Reply): void => void process.send?.(reply);
  const carryOut = async (request: Request): Promise<StretchResult | undefined> => {
    if (request.ask === 'connect') await client.connect(request.address, request.options);
    else if (request.ask === 'close') await client.close();
    else return new Stretch(request.plan, (moment) => say({ say: 'mark', moment })).run(client);
    return undefined;
  };
  const answer = async (request: Request): Promise<void> => {
    try {
      const result = await carryOut(request);
      say({ say: 'done', ...(result ? { result } : {}) });
      if (request.ask === 'close') process.disconnect();
    } catch (error) {
      say({ say: 'failed', error: error instanceof Error ? String(error.stack) : String(error) });
    }
  };
  process.on('message', (request: Request) => {
    void answer(request);
  });
  process.once('disconnect', () => process.exit());
}
