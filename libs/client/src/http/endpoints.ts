import { errors, Pool } from 'undici';

/** One broker, and its recent failures. */
export interface Endpoint {
  /** Without a slash at the end. */
  readonly url: string;
  readonly pathPrefix: string;
  /** Replaced when its connections may be dead. */
  pool: Pool;
  failures: number;
  /** By `performance.now()`: the last call that succeeded. */
  answeredAt: number;
  /** By `performance.now()`: a call with a short deadline got no answer, and no call since did. */
  suspectedAt: number | undefined;
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
 * The brokers of a client, all equal. A client stays with one, so that its own enqueues wake its
 * consumers. When that one fails, it turns to the next. A failed broker rests, twice as long each
 * time. Clients start with different brokers.
 */
export class Endpoints {
  readonly #endpoints: readonly Endpoint[];
  /** Replaced pools with calls in flight. */
  readonly #retired = new Set<Pool>();
  readonly #makePool: (origin: string) => Pool;
  #current: number;

  /**
   * Opens no connection yet. Throws TypeError without a URL, or for one that is not http or https,
   * or that has a user or a password.
   */
  constructor(urls: readonly string[], { connectTimeout, connections }: EndpointOptions) {
    if (urls.length === 0)
      throw new TypeError("url names no broker; give a broker's URL such as http://127.0.0.1:8080.");
    // A timer of its own is the deadline of a call, including connecting and reading. undici's own
    // limits are off.
    const limits = { connections, headersTimeout: 0, bodyTimeout: 0, connect: { timeout: connectTimeout } };
    this.#makePool = (origin) => new Pool(origin, limits);
    this.#endpoints = urls.map((text) => {
      const url = parseUrl(text);
      return {
        url: url.href.replace(/\/$/, ''),
        pathPrefix: url.pathname.replace(/\/$/, ''),
        pool: this.#makePool(url.origin),
        failures: 0,
        answeredAt: -Infinity,
        suspectedAt: undefined,
        restsUntil: 0,
      };
    });
    this.#current = Math.floor(Math.random() * urls.length);
  }

  /** The broker to ask now. If all rest, the one whose rest ends first. */
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
    endpoint.answeredAt = performance.now();
    endpoint.suspectedAt = undefined;
    endpoint.restsUntil = 0;
  }

  /**
   * A call whose own deadline is short got no answer. That alone is no failure: the broker may be
   * healthy and take longer. It is one if another such call, sent since, gets no answer either, and
   * no call did meanwhile.
   */
  suspected(endpoint: Endpoint, sentAt: number): void {
    if (endpoint.suspectedAt === undefined) endpoint.suspectedAt = performance.now();
    else if (sentAt >= endpoint.suspectedAt) this.failed(endpoint);
  }

  /** Calls that fail together count as one failure. */
  failed(endpoint: Endpoint): void {
    if (endpoint.restsUntil > performance.now()) return;
    const rest = Math.min(LONGEST_REST_MS, FIRST_REST_MS * 2 ** endpoint.failures);
    endpoint.failures += 1;
    endpoint.suspectedAt = undefined;
    endpoint.restsUntil = performance.now() + rest * (0.5 + Math.random() / 2);
  }

  /**
   * A call on this pool got no answer in time. The way to the broker may have gone silent: perhaps
   * a firewall forgot its connections. Then every connection of the pool is dead, and each would
   * cost another deadline. New calls get new connections. Calls in flight keep theirs until their
   * deadlines.
   */
  renew(endpoint: Endpoint, silent: Pool): void {
    if (endpoint.pool !== silent || silent.destroyed) return;
    endpoint.pool = this.#makePool(new URL(endpoint.url).origin);
    this.#retired.add(silent);
    void silent.close().finally(() => this.#retired.delete(silent));
  }

  get urls(): string[] {
    return this.#endpoints.map(({ url }) => url);
  }

  async close(): Promise<void> {
    const pools = [...this.#endpoints.map(({ pool }) => pool), ...this.#retired];
    const open = pools.filter((pool) => !pool.destroyed);
    await Promise.all(open.map((pool) => pool.destroy(new errors.ClientDestroyedError('the client is closed'))));
  }

  #earlier(one: number, other: number): number {
    const [first, second] = [this.#endpoints[one] as Endpoint, this.#endpoints[other] as Endpoint];
    return second.restsUntil < first.restsUntil ? other : one;
  }
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'http:' && url?.protocol !== 'https:')
    throw new TypeError(
      text.includes('@')
        ? 'The URL of the broker is not valid; give one such as http://127.0.0.1:8080.'
        : `'${text}' is not a broker's URL; give one such as http://127.0.0.1:8080.`,
    );
  // No request would carry them, but each error would name them.
  if (url.username !== '' || url.password !== '')
    throw new TypeError(
      `The URL of the broker at ${url.host} has a user or a password, which RowMQ does not know; give an API key as apiKey.`,
    );
  return url;
}
