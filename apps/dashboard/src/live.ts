import { useEffect, useRef, useState } from 'preact/hooks';
import { ApiError, changes, get } from './api.js';

/** After failures, the next try comes later, but not later than this. */
const LATEST_MS = 15_000;

/** Whether what was read before is over. Otherwise it stays while the broker is away. */
export function isRefusal(error: unknown): boolean {
  return error instanceof ApiError && error.isRefusal;
}

export interface Live<T> {
  /** The last answer for this path. Undefined after a refusal: the queue may be gone. */
  readonly data: T | undefined;
  /** Why the last try failed. */
  readonly error: Error | undefined;
}

/**
 * Reads a path again and again while the page is visible. A hidden page sends nothing, and reads at
 * once when it is shown.
 *
 * @param path undefined: nothing is read
 * @param everyMs the pause after an answer
 */
export function useLive<T>(path: string | undefined, everyMs: number): Live<T> {
  const [state, setState] = useState<{ path?: string; data?: T; error?: Error }>({});
  const change = changes.value;
  const pathNow = useRef(path);
  pathNow.current = path;
  useEffect(() => {
    if (path === undefined) return undefined;
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isRunning = false;
    let failures = 0;
    const read = async (): Promise<void> => {
      if (isRunning || document.hidden) return;
      isRunning = true;
      clearTimeout(timer);
      try {
        const data = await get<T>(path, stop.signal);
        if (stop.signal.aborted) return;
        failures = 0;
        setState({ path, data });
      } catch (error) {
        if (stop.signal.aborted) return;
        failures += 1;
        const isKept = !isRefusal(error);
        setState((before) => ({ ...(isKept && before.path === path ? before : {}), path, error: error as Error }));
      } finally {
        isRunning = false;
      }
      timer = setTimeout(() => void read(), Math.min(everyMs * 2 ** failures, Math.max(LATEST_MS, everyMs)));
    };
    const shown = (): void => void read();
    document.addEventListener('visibilitychange', shown);
    void read();
    return () => {
      stop.abort();
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', shown);
    };
  }, [path, everyMs, change]);
  const isOfPath = state.path === path;
  return { data: isOfPath ? state.data : undefined, error: isOfPath ? state.error : undefined };
}
