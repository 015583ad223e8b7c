import { signal } from '@preact/signals';
import type { JSX } from 'preact';

const SHOWN_MS = 6000;

const toasts = signal<readonly { id: number; text: string }[]>([]);
let count = 0;

/** Says for some seconds that something was done. */
export function toast(text: string): void {
  count += 1;
  const id = count;
  toasts.value = [...toasts.value, { id, text }];
  setTimeout(() => (toasts.value = toasts.value.filter((one) => one.id !== id)), SHOWN_MS);
}

export function Toasts(): JSX.Element {
  return (
    <div class="toasts" role="status">
      {toasts.value.map(({ id, text }) => (
        <p key={id}>{text}</p>
      ))}
    </div>
  );
}
