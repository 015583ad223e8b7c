/** npm passes on the Ctrl-C that the terminal already delivered: two signals this close together are one request. */
const SAME_REQUEST_MS = 1_000;

/**
 * Tells of requests to stop this process, which are SIGINT, SIGTERM and SIGHUP: of the first, and of each later one that cannot be the first
 * again because it comes a second after it or more. Call once; from then on none of them ends the process by itself.
 */
export function onStopRequest(first: (signal: NodeJS.Signals) => void, again: (signal: NodeJS.Signals) => void): void {
  let requestedAt: number | undefined;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      const now = performance.now();
      if (requestedAt === undefined) {
        requestedAt = now;
        first(signal);
      } else if (now - requestedAt >= SAME_REQUEST_MS) again(signal);
    });
  }
}
