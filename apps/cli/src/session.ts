import { hostname, userInfo } from 'node:os';
import { RowmqHttpClient } from '@rowmq/client/core';
import { readConnection } from './cli.config.js';
import { confirmByName } from './confirm.js';
import { UsageError } from './exit-codes.js';
import { Output } from './output/output.js';

export interface GlobalOptions {
  url?: string;
  profile?: string;
  json?: boolean;
  color?: boolean;
  timeout?: number;
}

/** The tools of a command: the broker's client, its output, and Ctrl-C. */
export class Session {
  readonly out: Output;
  #client: RowmqHttpClient | undefined;
  #interrupt: AbortController | undefined;

  constructor(
    readonly options: GlobalOptions,
    readonly env: NodeJS.ProcessEnv,
  ) {
    this.out = new Output({ json: options.json === true, color: options.color !== false, env });
  }

  /** The addresses of the brokers that stand in for each other. */
  get urls(): string[] {
    return [readConnection(this.options, this.env).url].flat();
  }

  /** The client of the broker that the options, the environment or a profile name. */
  get client(): RowmqHttpClient {
    this.#client ??= this.newClient();
    return this.#client;
  }

  /** Somebody who waits at a terminal wants to know soon that no broker answers. */
  private newClient(): RowmqHttpClient {
    const { url, key, from } = readConnection(this.options, this.env);
    try {
      return new RowmqHttpClient({
        url,
        ...(key !== undefined && { apiKey: key }),
        timeoutMs: (this.options.timeout ?? 10) * 1000,
        retrySeconds: 3,
      });
    } catch (error) {
      throw new UsageError(`The broker's address or key, from ${from}, is not valid. ${(error as Error).message}`);
    }
  }

  /** The name under which operators see who holds what this command receives. */
  get consumer(): string {
    return `rowmq (${userName()}@${hostname()})`.slice(0, 128);
  }

  /**
   * Ctrl-C from now on aborts this signal, and the command ends by itself. A second Ctrl-C ends the
   * process.
   */
  onInterrupt(): AbortSignal {
    this.#interrupt ??= new AbortController();
    return this.#interrupt.signal;
  }

  /** Returns whether a command ends by itself now. */
  interrupt(): boolean {
    if (this.#interrupt === undefined || this.#interrupt.signal.aborted) return false;
    this.#interrupt.abort();
    return true;
  }

  /** Asks for the name of what is about to be lost, unless `--yes` was given. */
  async confirm(kind: string, name: string, effect: string, yes: boolean | undefined): Promise<void> {
    if (yes !== true) await confirmByName(kind, name, effect);
  }

  async close(): Promise<void> {
    await this.#client?.close();
  }
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // A container's user may have no name.
    return String(process.getuid?.() ?? 'unknown');
  }
}

/** Gives a command its session. */
export type Open = () => Session;
