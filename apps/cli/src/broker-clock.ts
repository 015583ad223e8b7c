/** A difference below this may come from the header, which has whole seconds. */
const RESOLUTION_MS = 2000;
const DEADLINE_MS = 5000;

/**
 * The broker's time in ms, by the `Date` header of its answers. This machine's clock may be wrong.
 * The function goes on with this machine's time if no broker answers.
 */
export async function brokerClock(urls: readonly string[]): Promise<() => number> {
  for (const url of urls) {
    const askedAt = performance.now();
    const date = await dateOf(url);
    if (date === undefined) continue;
    // On the average, the header is half a second late.
    const then = date + 500;
    const middle = (askedAt + performance.now()) / 2;
    const elapsed = (): number => performance.now() - middle;
    const differs = Math.abs(then + elapsed() - Date.now()) >= RESOLUTION_MS;
    return differs ? () => then + elapsed() : Date.now;
  }
  return Date.now;
}

async function dateOf(url: string): Promise<number | undefined> {
  try {
    const answer = await fetch(`${url.replace(/\/$/, '')}/health/live`, {
      method: 'HEAD',
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
    const date = Date.parse(answer.headers.get('date') ?? '');
    return Number.isNaN(date) ? undefined : date;
  } catch {
    return undefined;
  }
}
