/**
 * npm repeats the Ctrl-C that the terminal already delivered. Two signals this close are one
 * request.
 */
const SAME_REQUEST_MS = 1_000;

/**
 * Listens for requests to stop this process: SIGINT, SIGTERM and SIGHUP. Calls `first` for the
 * first one, and `again` for each one that comes at least a second later. From then on, none of
 * these signals ends the process by itself. Call once.
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
