import { errors, Pool } from 'undici';

/** One broker, and whether it is worth asking. */
export interface Endpoint {
  /** Without a slash at the end. */
  readonly url: string;
  readonly pathPrefix: string;
  readonly pool: Pool;
  failures: number;
  /** By `performance.now()`. */
  restsUntil: number;
}

export interface EndpointOptions {
  /** ms. */
  connectTimeout: number;
  connections: number;
}

const FIRST_REST_MS = 500;
const LONGEST_REST_MS = 30_000;

/**
 * The brokers of a client. All are equal: a client stays with one, so that its consumers are woken by its own enqueues, and turns to the next when that one fails; one that has failed rests for a
 * while, twice as long each time. Clients begin at different ones.
 */
export class Endpoints {
  readonly #endpoints: readonly Endpoint[];
  #current: number;

  /** Opens no connection yet. Throws TypeError when there is no URL, or one is not http or https. */
  constructor(urls: readonly string[], { connectTimeout, connections }: EndpointOptions) {
    if (urls.length === 0)
      throw new TypeError("url names no broker; give a broker's URL such as http://127.0.0.1:8080.");
    this.#endpoints = urls.map((text) => {
      const url = parseUrl(text);
      // The deadline of a call is a timer of its own, which covers connecting and reading too: undici's own limits stay out of its way.
      const limits = { connections, headersTimeout: 0, bodyTimeout: 0, connect: { timeout: connectTimeout } };
      return {
        url: url.href.replace(/\/$/, ''),
        pathPrefix: url.pathname.replace(/\/$/, ''),
        pool: new Pool(url.origin, limits),
        failures: 0,
        restsUntil: 0,
      };
    });
    this.#current = Math.floor(Math.random() * urls.length);
  }

  /** The broker to ask now. Where all rest, the one that is to be tried first. */
  pick(): Endpoint {
    const now = performance.now();
    const current = this.#endpoints[this.#current] as Endpoint;
    if (current.restsUntil <= now) return current;
    const inTurn = this.#endpoints.map((_, turn) => (this.#current + turn) % this.#endpoints.length);
    const rested = inTurn.find((index) => (this.#endpoints[index] as Endpoint).restsUntil <= now);
    this.#current = rested ?? inTurn.reduce((best, index) => this.#earlier(best, index));
    return this.#endpoints[this.#current] as Endpoint;
  }

  succeeded(endpoint: Endpoint): void {
    endpoint.failures = 0;
    endpoint.restsUntil = 0;
  }

  /** Calls that fail together are one failure. */
  failed(endpoint: Endpoint): void {
    if (endpoint.restsUntil > performance.now()) return;
    const rest = Math.min(LONGEST_REST_MS, FIRST_REST_MS * 2 ** endpoint.failures);
    endpoint.failures += 1;
    endpoint.restsUntil = performance.now() + rest * (0.5 + Math.random() / 2);
  }

  get urls(): string[] {
    return this.#endpoints.map(({ url }) => url);
  }

  async close(): Promise<void> {
    const open = this.#endpoints.filter(({ pool }) => !pool.destroyed);
    await Promise.all(open.map(({ pool }) => pool.destroy(new errors.ClientDestroyedError('the client is closed'))));
  }

  #earlier(one: number, other: number): number {
    const [first, second] = [this.#endpoints[one] as Endpoint, this.#endpoints[other] as Endpoint];
    return second.restsUntil < first.restsUntil ? other : one;
  }
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === 'http:' || url?.protocol === 'https:') return url;
  throw new TypeError(`'${text}' is not a broker's URL; give one such as http://127.0.0.1:8080.`);
}
