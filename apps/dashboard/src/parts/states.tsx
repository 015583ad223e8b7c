import type { ComponentChildren, JSX } from 'preact';
import { trouble } from '../api.js';
import { number } from '../format.js';
import type { Live } from '../live.js';

/**
 * Shows what was read, or why there is nothing. Old data stays while reading fails, and the page
 * says that it is old.
 */
export function Loaded<T>({
  live,
  children,
}: {
  live: Live<T>;
  children: (data: T) => ComponentChildren;
}): JSX.Element {
  const { data, error } = live;
  const fault = error !== undefined && (
    <p class="fault" role="alert">
      {error.message}
    </p>
  );
  if (data !== undefined)
    return (
      <>
        {trouble.value === undefined && fault}
        {children(data)}
      </>
    );
  if (fault !== false) return fault;
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
  if (total <= limit && offset === 0) return null;
  const last = Math.min(offset + limit, total);
  // The list may have become shorter.
  const before = Math.max(0, Math.min(offset - limit, (Math.ceil(total / limit) - 1) * limit));
  return (
    <nav class="pager" aria-label="Pages of the list">
      <button type="button" disabled={offset === 0} onClick={() => onMove(before)}>
        Previous
      </button>
      <span>
        {offset < total ? `${number(offset + 1)} to ${number(last)} of ${number(total)}` : `none of ${number(total)}`}
      </span>
      <button type="button" disabled={last >= total} onClick={() => onMove(offset + limit)}>
        Next
      </button>
    </nav>
  );
}

interface CursorPagerProps {
  /** The things on the pages, for a screen reader. */
  readonly of: string;
  /** The cursors of the pages up to this one, without the first, which has none. */
  readonly cursors: readonly string[];
  readonly nextAfter: string | null;
  readonly words?: readonly [previous: string, next: string];
  readonly showsPage?: boolean;
  readonly onMove: (cursors: readonly string[]) => void;
}

/** The pager of a list that each page continues by a cursor. One page needs none. */
export function CursorPager({
  of,
  cursors,
  nextAfter,
  words,
  showsPage,
  onMove,
}: CursorPagerProps): JSX.Element | null {
  if (cursors.length === 0 && nextAfter === null) return null;
  const [previous, next] = words ?? ['Previous', 'Next'];
  return (
    <nav class="pager" aria-label={`Pages of ${of}`}>
      <button type="button" disabled={cursors.length === 0} onClick={() => onMove(cursors.slice(0, -1))}>
        {previous}
      </button>
      {showsPage === true && <span>Page {cursors.length + 1}</span>}
      <button
        type="button"
        disabled={nextAfter === null}
        onClick={() => nextAfter !== null && onMove([...cursors, nextAfter])}
      >
        {next}
      </button>
    </nav>
  );
}
