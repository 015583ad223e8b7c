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

/**
 * Sends a request and reads its whole answer. Throws undici's HeadersTimeoutError at the deadline, the signal's reason when that fires, and what the connection came to.
 *
 * On undici's `dispatch`: its `request` makes a stream of every answer, which costs as much again as all the rest. One timer and one listener per call rather than AbortSignal.any, which keeps every signal it
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
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

class AnswerReader implements Dispatcher.DispatchHandler {
  readonly whole: Promise<HttpAnswer>;
  private resolve!: (answer: HttpAnswer) => void;
  private reject!: (error: Error) => void;
  private controller: Dispatcher.DispatchController | undefined;
  private givenUp: Error | undefined;
  private status = 0;
  private retryAfter: string | string[] | undefined;
  private readonly chunks: Buffer[] = [];

  constructor() {
    this.whole = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  /** Whoever waits is told at once; a request that has not left yet never does. */
  giveUp(reason: Error): void {
    this.givenUp = reason;
    this.reject(reason);
    this.controller?.abort(reason);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller;
    if (this.givenUp !== undefined) controller.abort(this.givenUp);
  }

  onResponseStart(
    _: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    this.status = status;
    this.retryAfter = headers['retry-after'];
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    this.chunks.push(chunk);
  }

  onResponseEnd(): void {
    const [first] = this.chunks;
    const bytes = this.chunks.length === 1 ? (first as Buffer) : Buffer.concat(this.chunks);
    this.resolve({ status: this.status, text: bytes.toString(), retryAfter: this.retryAfter });
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    this.reject(error);
  }
}
