import type { IncomingMessage, ServerResponse } from 'node:http';
import { createParamDecorator, type ExecutionContext } from '@nestjs/common';

/** The client behind a request, as far as a dequeue cares: is it still there, and did it get its answer? */
export class ClientConnection {
  private readonly controller = new AbortController();

  constructor(request: IncomingMessage, response: ServerResponse) {
    // The request's socket: a pipelined answer has none of its own until those before it are written.
    const { socket } = request;
    if (response.destroyed || socket.destroyed) {
      this.controller.abort();
      return;
    }
    // Node says `finish`, and `writableFinished`, of an answer too that a broken connection cut short. It looks whole only while the connection is.
    let handedOver = false;
    response.prependOnceListener('finish', () => (handedOver = !socket.destroyed && socket.errored === null));
    // A pipelined answer whose turn never came does not hear of the end of its connection by itself.
    const ended = (): void => {
      socket.off('close', ended);
      if (!handedOver) this.controller.abort();
    };
    response.once('close', ended);
    socket.once('close', ended);
  }

  /** Aborted when the client hangs up before the whole answer was handed to the operating system. */
  get hungUp(): AbortSignal {
    return this.controller.signal;
  }
}

/** Injects the {@link ClientConnection} of the request. */
export const Client = createParamDecorator((_: unknown, context: ExecutionContext): ClientConnection => {
  const http = context.switchToHttp();
  return new ClientConnection(
    http.getRequest<{ raw: IncomingMessage }>().raw,
    http.getResponse<{ raw: ServerResponse }>().raw,
  );
});
