import type { ServerResponse } from 'node:http';
import { createParamDecorator, type ExecutionContext } from '@nestjs/common';

/** The client behind a request, as far as a dequeue cares: is it still there, and did it get its answer? */
export class ClientConnection {
  private readonly controller = new AbortController();

  constructor(response: ServerResponse) {
    const { socket } = response;
    if (response.destroyed || socket === null) {
      this.controller.abort();
      return;
    }
    // Node says `finish`, and `writableFinished`, of an answer too that a broken connection cut short. It looks whole only while the connection is.
    let handedOver = false;
    response.prependOnceListener('finish', () => (handedOver = !socket.destroyed && socket.errored === null));
    response.once('close', () => handedOver || this.controller.abort());
  }

  /** Aborted when the client hangs up before the whole answer was handed to the operating system. */
  get hungUp(): AbortSignal {
    return this.controller.signal;
  }
}

/** Injects the {@link ClientConnection} of the request. */
export const Client = createParamDecorator((_: unknown, context: ExecutionContext): ClientConnection => {
  const response = context.switchToHttp().getResponse<{ raw: ServerResponse }>();
  return new ClientConnection(response.raw);
});
