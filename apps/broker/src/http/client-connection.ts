import type { IncomingMessage, ServerResponse } from 'node:http';
import { createParamDecorator, type ExecutionContext } from '@nestjs/common';

/** The client of a request: whether it is still connected until its answer is complete. */
export class ClientConnection {
  private readonly controller = new AbortController();

  constructor(request: IncomingMessage, response: ServerResponse) {
    // A pipelined answer has no socket of its own until those before it are written.
    const { socket } = request;
    if (response.destroyed || socket.destroyed) {
      this.controller.abort();
      return;
    }
    // Node also reports `finish` and `writableFinished` for an answer that a broken connection cut
    // short. The answer is complete only if the connection is intact.
    let handedOver = false;
    response.prependOnceListener('finish', () => (handedOver = !socket.destroyed && socket.errored === null));
    // Node tells a pipelined answer whose turn never came nothing of the end of its connection.
    const ended = (): void => {
      socket.off('close', ended);
      if (!handedOver) this.controller.abort();
    };
    response.once('close', ended);
    socket.once('close', ended);
  }

  /** Aborted when the client hangs up before the operating system has the whole answer. */
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
