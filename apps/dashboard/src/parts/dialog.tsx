import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { ApiError } from '../api.js';
import { toast } from './toasts.js';

interface FormDialogProps {
  readonly title: string;
  /** The label of the button that does it. */
  readonly action: string;
  readonly isDangerous?: boolean;
  /** A name that the reader types, so that nothing happens to another queue. */
  readonly confirmName?: string;
  readonly children?: ComponentChildren;
  /** Does it, and returns what to say then. The signal tells that the form was closed. */
  readonly onSubmit: (values: FormData, closed: AbortSignal) => Promise<string | undefined>;
  readonly onClose: () => void;
}

/** A form in a native dialog, which keeps the focus inside and closes with Escape. */
export function FormDialog(props: FormDialogProps): JSX.Element {
  const { title, action, isDangerous = false, confirmName, children, onSubmit, onClose } = props;
  const id = useId();
  const dialog = useRef<HTMLDialogElement>(null);
  const [typed, setTyped] = useState('');
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<string>();
  const closed = useRef(new AbortController());
  useEffect(() => {
    const opener = document.activeElement as HTMLElement | null;
    const { current: onceClosed } = closed;
    dialog.current?.showModal();
    return () => {
      onceClosed.abort();
      opener?.focus();
    };
  }, []);
  const submit = async (values: FormData): Promise<void> => {
    setBusy(true);
    setError(undefined);
    try {
      const { signal } = closed.current;
      const done = await onSubmit(values, signal);
      if (done !== undefined) toast(done);
      // The reader may have opened another form meanwhile.
      if (!signal.aborted) onClose();
    } catch (failure) {
      setBusy(false);
      setError(messageOf(failure as Error));
    }
  };
  const isConfirmed = confirmName === undefined || typed.trim() === confirmName;
  return (
    <dialog ref={dialog} aria-labelledby={`${id}-title`} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit(new FormData(event.currentTarget));
        }}
      >
        <h2 id={`${id}-title`}>{title}</h2>
        {children}
        {confirmName !== undefined && (
          <p>
            <label for={`${id}-confirm`}>
              Type <strong>{confirmName}</strong> to confirm
            </label>
            <input
              id={`${id}-confirm`}
              value={typed}
              onInput={(event) => setTyped(event.currentTarget.value)}
              autocomplete="off"
              autocapitalize="off"
              spellcheck={false}
            />
          </p>
        )}
        <p role="alert" class="fault">
          {error}
        </p>
        <p class="buttons">
          <button type="button" onClick={() => dialog.current?.close()}>
            Cancel
          </button>
          <button type="submit" class={isDangerous ? 'danger' : 'primary'} disabled={!isConfirmed || isBusy}>
            {action}
          </button>
        </p>
      </form>
    </dialog>
  );
}

/** The refusal of the broker, field by field if it named fields. */
export function messageOf(error: Error): string {
  const faults = error instanceof ApiError ? error.problem?.faults : undefined;
  if (faults === undefined || faults.length === 0) return error.message;
  return faults.map(({ path, message }) => (path === '' ? message : `${path} ${message}`)).join('. ');
}

/** The text of a field, or undefined if it is empty. */
export function textIn(values: FormData, name: string): string | undefined {
  const value = values.get(name);
  return typeof value === 'string' && value.trim() !== '' ? value.trim() : undefined;
}

export function numberIn(values: FormData, name: string): number | undefined {
  const text = textIn(values, name);
  return text === undefined ? undefined : Number(text);
}

interface FieldProps {
  readonly label: string;
  readonly name: string;
  readonly help?: string;
  readonly children?: ComponentChildren;
}

interface Input {
  readonly type?: 'text' | 'number' | 'datetime-local';
  readonly value?: string | number;
  readonly min?: number;
  readonly max?: number;
  readonly step?: number;
  readonly maxLength?: number;
  readonly required?: boolean;
  readonly placeholder?: string;
  readonly autocomplete?: 'off';
  readonly spellcheck?: boolean;
}

/**
 * A labelled input. Its help is read out with it.
 *
 * The value is only the first one: the page below a form reads again every few seconds, and must
 * not undo what was typed.
 */
export function Field({ label, name, help, value, ...input }: FieldProps & Input): JSX.Element {
  const id = useId();
  return (
    <p class="field">
      <label for={id}>{label}</label>
      <input
        id={id}
        name={name}
        aria-describedby={help === undefined ? undefined : `${id}-help`}
        defaultValue={value === undefined ? undefined : String(value)}
        {...(input as object)}
      />
      {help !== undefined && (
        <small id={`${id}-help`} class="muted">
          {help}
        </small>
      )}
    </p>
  );
}

/** A labelled text of several lines. The value is the first one, as that of {@link Field}. */
export function Area({
  label,
  name,
  help,
  value,
  ...area
}: FieldProps & { rows: number; value?: string; required?: boolean; spellcheck?: boolean }): JSX.Element {
  const id = useId();
  return (
    <p class="field">
      <label for={id}>{label}</label>
      <textarea
        id={id}
        name={name}
        aria-describedby={help === undefined ? undefined : `${id}-help`}
        defaultValue={value}
        {...area}
      />
      {help !== undefined && (
        <small id={`${id}-help`} class="muted">
          {help}
        </small>
      )}
    </p>
  );
}

interface ChoiceProps extends FieldProps {
  readonly options: readonly (readonly [value: string, label: string])[];
  readonly value?: string;
}

export function Choice({ label, name, help, options, value }: ChoiceProps): JSX.Element {
  const id = useId();
  return (
    <p class="field">
      <label for={id}>{label}</label>
      <select id={id} name={name} aria-describedby={help === undefined ? undefined : `${id}-help`}>
        {options.map(([option, text]) => (
          <option key={option} value={option} selected={option === value}>
            {text}
          </option>
        ))}
      </select>
      {help !== undefined && (
        <small id={`${id}-help`} class="muted">
          {help}
        </small>
      )}
    </p>
  );
}
