import { type Dispatcher, errors } from 'undici';

export interface HttpRequest {
  method: Dispatcher.HttpMethod;
  path: string;
  headers: Record<string, string>;
  body: string | null;
}

export interface HttpAnswer {
  status: number;
  text: string;
  retryAfter: string | string[] | undefined;
}

/** A request got no answer. */
export class NoAnswer extends Error {
  /**
   * @param cause undici's HeadersTimeoutError at the deadline, the signal's reason, or the
   * connection's error
   * @param neverLeft nothing of it was written to a connection, and nothing will be
   */
  constructor(
    override readonly cause: unknown,
    readonly neverLeft: boolean,
  ) {
    super('no answer');
  }
}

/**
 * Sends a request and reads its whole answer. Throws {@link NoAnswer}.
 *
 * It uses undici's `dispatch`: `request` makes a stream of every answer, which doubles the cost.
 * One timer and one listener per call replace AbortSignal.any, which keeps every signal that it
 * made on a long-lived source.
 */
export async function exchange(
  dispatcher: Dispatcher,
  request: HttpRequest,
  { deadlineMs, signal }: { deadlineMs: number; signal?: AbortSignal | undefined },
): Promise<HttpAnswer> {
  const answer = new AnswerReader();
  const onAbort = () => answer.giveUp(signal?.reason as Error);
  const timer = setTimeout(() => answer.giveUp(new errors.HeadersTimeoutError()), deadlineMs);
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    dispatcher.dispatch(request, answer);
    return await answer.whole;
  } catch (error) {
    throw new NoAnswer(error, answer.neverLeft);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

class AnswerReader implements Dispatcher.DispatchHandler {
  readonly whole: Promise<HttpAnswer>;
  #resolve!: (answer: HttpAnswer) => void;
  #reject!: (error: Error) => void;
  #controller: Dispatcher.DispatchController | undefined;
  #givenUp: Error | undefined;
  #status = 0;
  #retryAfter: string | string[] | undefined;
  readonly #chunks: Buffer[] = [];

  constructor() {
    this.whole = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  get neverLeft(): boolean {
    return this.#controller === undefined;
  }

  /** Rejects at once. A request that has not left yet never leaves. */
  giveUp(reason: Error): void {
    this.#givenUp = reason;
    this.#reject(reason);
    this.#controller?.abort(reason);
  }

  /** undici calls it just before the first byte. A cancelled request is not written. */
  onRequestStart(controller: Dispatcher.DispatchController): void {
    if (this.#givenUp === undefined) this.#controller = controller;
    else controller.abort(this.#givenUp);
  }

  onResponseStart(
    _: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    this.#status = status;
    this.#retryAfter = headers['retry-after'];
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#chunks.push(chunk);
  }

  onResponseEnd(): void {
    const [first] = this.#chunks;
    const bytes = this.#chunks.length === 1 ? (first as Buffer) : Buffer.concat(this.#chunks);
    this.#resolve({ status: this.#status, text: bytes.toString(), retryAfter: this.#retryAfter });
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    this.#reject(error);
  }
}
