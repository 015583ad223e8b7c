import { RowmqError } from '@rowmq/contract';

/** Longer than the primary waits for the other workers. */
const ANSWER_MS = 5000;

/** Asks the primary for the metrics of all workers. */
export class Scrapes {
  private readonly waiting = new Map<number, (text: string) => void>();
  private lastId = 0;

  /** `send` asks; the answer to that number comes by {@link answer}. */
  constructor(private readonly send: (id: number) => void) {}

  /** Throws `overloaded` when no answer comes in time: a part would look as if counters had been reset. */
  async ask(): Promise<string> {
    const id = (this.lastId += 1);
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<string>((resolve, reject) => {
        this.waiting.set(id, resolve);
        timer = setTimeout(() => {
          reject(
            new RowmqError('overloaded', 'The other workers do not answer; try again later.', { retryAfterSeconds: 1 }),
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
