import { RowmqError } from '@rowmq/contract';

/** Longer than the primary waits for the other workers. */
const ANSWER_MS = 5000;

/** Asks the primary for the metrics of all workers. */
export class Scrapes {
  private readonly waiting = new Map<number, (text: string) => void>();
  private lastId = 0;

  /** @param send asks the primary; {@link answer} then gets the answer with the same id */
  constructor(private readonly send: (id: number) => void) {}

  /**
   * Throws `overloaded` when no answer comes in time. A partial answer would look like reset
   * counters.
   */
  async ask(): Promise<string> {
    const id = (this.lastId += 1);
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<string>((resolve, reject) => {
        this.waiting.set(id, resolve);
        timer = setTimeout(() => {
          reject(
            new RowmqError('overloaded', 'The other workers of this broker do not answer. Try again later.', {
              retryAfterSeconds: 1,
            }),
          );
        }, ANSWER_MS).unref();
        this.send(id);
      });
    } finally {
      clearTimeout(timer);
      this.waiting.delete(id);
    }
  }

  answer(id: number, text: string): void {
    this.waiting.get(id)?.(text);
  }
}
