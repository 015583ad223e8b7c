import type { ComponentChildren, JSX } from 'preact';
import type { Live } from '../live.js';

/** Shows what was read, or why there is nothing yet. Old data stays while the broker is away. */
export function Loaded<T>({
  live,
  children,
}: {
  live: Live<T>;
  children: (data: T) => ComponentChildren;
}): JSX.Element {
  const { data, error } = live;
  if (data !== undefined) return <>{children(data)}</>;
  if (error !== undefined)
    return (
      <p class="fault" role="alert">
        {error.message}
      </p>
    );
  return (
    <p class="muted" role="status">
      Loading …
    </p>
  );
}

/** Pages of a list: from which row on, and how many there are. */
export function Pager({
  offset,
  limit,
  total,
  onMove,
}: {
  offset: number;
  limit: number;
  total: number;
  onMove: (offset: number) => void;
}): JSX.Element | null {
  if (total <= limit) return null;
  const last = Math.min(offset + limit, total);
  return (
    <nav class="pager" aria-label="Pages of the list">
      <button type="button" disabled={offset === 0} onClick={() => onMove(Math.max(0, offset - limit))}>
        Previous
      </button>
      <span>
        {offset + 1} to {last} of {total}
      </span>
      <button type="button" disabled={last >= total} onClick={() => onMove(offset + limit)}>
        Next
      </button>
    </nav>
  );
}
