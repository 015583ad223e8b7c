import type { PeerClient, Plan } from './client.js';
import { Stretch, type StretchResult } from './load.js';
import { Callers, Handlers } from './used.js';

/** A request of the measuring process to a client process. */
export type Request =
  | { ask: 'connect'; address: string; options: Record<string, string | number> }
  | { ask: 'stretch'; plan: Plan }
  | UsedRequest
  | { ask: 'close' };

/** A `used` stretch has a process with callers and one with handlers. */
type UsedRequest =
  | { ask: 'call'; plan: Plan }
  | { ask: 'handle'; plan: Plan }
  /** Asks the handlers for the messages that they are done with. */
  | { ask: 'count' }
  /** Passes that number on to the callers. */
  | { ask: 'progress'; completed: number }
  /** Asks the callers to stop, and for the messages that they have sent. */
  | { ask: 'stop' }
  /** Tells the handlers that number. */
  | { ask: 'finish'; sent: number };

/** `count` answers `count` and `stop`. */
export type Done = { say: 'done'; result?: StretchResult; count?: number };

/** A client's reply. Each request gets one `done` or `failed`, after its marks. */
export type Reply = { say: 'mark'; moment: 'begin' | 'end' } | Done | { say: 'failed'; error: string };

/** Answers the process that started this one, until it says `close` or is gone. */
export function serve(client: PeerClient): void {
  const say = (reply: Reply): void => void process.send?.(reply);
  const used = new UsedStretch(client);
  const carryOut = async (request: Request): Promise<Omit<Done, 'say'>> => {
    switch (request.ask) {
      case 'connect':
        await client.connect(request.address, request.options);
        return {};
      case 'stretch':
        return { result: await new Stretch(request.plan, (moment) => say({ say: 'mark', moment })).run(client) };
      case 'close':
        await client.close();
        return {};
      default:
        return used.carryOut(request);
    }
  };
  const answer = async (request: Request): Promise<void> => {
    try {
      say({ say: 'done', ...(await carryOut(request)) });
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

/** One side of a `used` stretch. */
class UsedStretch {
  private callers: Callers | undefined;
  private handlers: Handlers | undefined;

  constructor(private readonly client: PeerClient) {}

  async carryOut(request: UsedRequest): Promise<Omit<Done, 'say'>> {
    switch (request.ask) {
      case 'call':
        this.callers = new Callers(await this.client.openQueue(request.plan), request.plan);
        return {};
      case 'handle':
        this.handlers = await Handlers.start(await this.client.openQueue(request.plan), request.plan);
        return {};
      case 'count':
        return { count: started(this.handlers).done() };
      case 'progress':
        started(this.callers).progress(request.completed);
        return {};
      case 'stop':
        return { count: await started(this.callers).stop() };
      default:
        await started(this.handlers).finish(request.sent);
        return {};
    }
  }
}

function started<T>(side: T | undefined): T {
  if (side === undefined) throw new Error('this side of the stretch has not been started');
  return side;
}
