import { computed, signal } from '@preact/signals';

/** The reader's place: the path behind the `#`, which no server sees. */
export interface Place {
  readonly path: readonly string[];
  readonly query: URLSearchParams;
}

const hash = signal(location.hash);
addEventListener('hashchange', () => {
  hash.value = location.hash;
});

export const place = computed<Place>(() => {
  const [path = '', query = ''] = hash.value.slice(1).split(/\?(.*)/s);
  return { path: path.split('/').filter(Boolean).map(decoded), query: new URLSearchParams(query) };
});

/** The address of a place, for links. Parameters without a value are left out. */
export function to(path: readonly string[], query: Record<string, string | number | undefined> = {}): string {
  const wanted = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
  const search = new URLSearchParams(wanted.map(([name, value]) => [name, String(value)])).toString();
  return `#/${path.map(encodeURIComponent).join('/')}${search === '' ? '' : `?${search}`}`;
}

export function go(path: readonly string[], query: Record<string, string | number | undefined> = {}): void {
  location.hash = to(path, query);
}

/** Changes parameters of the place, without a step in the browser's history. */
export function refine(changes: Record<string, string | number | undefined>): void {
  const { path, query } = place.value;
  history.replaceState(null, '', to(path, { ...Object.fromEntries(query), ...changes }));
  hash.value = location.hash;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
