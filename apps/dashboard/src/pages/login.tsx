import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import { hasEnded, logIn } from '../api.js';

/**
 * Asks for a key. It goes to the broker once, which answers with a cookie that no script can read.
 */
export function LoginPage(): JSX.Element {
  const [error, setError] = useState<string>();
  const [isBusy, setBusy] = useState(false);
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const input = form.elements.namedItem('key') as HTMLInputElement;
    setBusy(true);
    setError(undefined);
    logIn(input.value.trim()).catch((failure: Error) => {
      setBusy(false);
      setError(failure.message);
      input.focus();
    });
  };
  return (
    <main class="alone">
      <h1>
        <img src="dashboard/icon.svg" alt="" width="32" height="32" /> RowMQ
      </h1>
      {hasEnded.value && (
        <p class="attention-line warn" role="status">
          Your session has ended: after twelve hours, or because its key was revoked, rotated or expired. Log in to go
          on where you were.
        </p>
      )}
      <form class="card" onSubmit={submit}>
        <label for="key">API key</label>
        <input
          id="key"
          name="key"
          type="password"
          autocomplete="current-password"
          required
          maxLength={300}
          autofocus
          aria-describedby="key-help key-error"
        />
        <p id="key-help" class="muted">
          A key with the scope <code>read</code> or <code>admin</code>, or the broker's <code>ROWMQ_ADMIN_KEY</code>.
          The browser does not keep it.
        </p>
        <p id="key-error" role="alert" class="fault">
          {error}
        </p>
        <button type="submit" class="primary" disabled={isBusy}>
          Log in
        </button>
      </form>
    </main>
  );
}
