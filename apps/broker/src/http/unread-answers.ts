import type { ServerResponse } from 'node:http';
import { Injectable } from '@nestjs/common';
import type { FastifyAdapter } from '@nestjs/platform-fastify';
import { RowmqError } from '@rowmq/contract';

/** Shorter answers do not count: the operating system takes them at once. */
const LEAST_LENGTH = 64 * 1024;
/** The most characters of answers that wait in the broker until their clients read. */
const MOST_LENGTH = 128 * 1024 * 1024;

/**
 * The large answers that their clients have not read yet. They stay in the broker's memory until
 * the operating system has them.
 */
@Injectable()
export class UnreadAnswers {
  private length = 0;

  /** Throws `overloaded` while clients leave too much unread. */
  refuseIfFull(): void {
    if (this.length < MOST_LENGTH) return;
    throw new RowmqError(
      'overloaded',
      `Consumers have not read ${this.length} bytes of this broker's answers; try again later.`,
      { retryAfterSeconds: 1 },
    );
  }

  /** Counts an answer until the operating system has the whole of it, or the client hangs up. */
  add(length: number, response: Pick<ServerResponse, 'once' | 'destroyed'>): void {
    if (length < LEAST_LENGTH || response.destroyed) return;
    this.length += length;
    response.once('close', () => {
      this.length -= length;
    });
  }
}

/** Counts every answer of the application. */
export function countAnswers(adapter: FastifyAdapter, unread: UnreadAnswers): void {
  adapter.getInstance().addHook('onSend', (_request, reply, payload, done) => {
    if (typeof payload === 'string') unread.add(payload.length, reply.raw);
    done();
  });
}
