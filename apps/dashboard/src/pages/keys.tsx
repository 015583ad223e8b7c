import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { CreateKeyRequest, KeyAnswer, KeysAnswer, KeyScope, NewKeyAnswer } from '@rowmq/contract';
import { admin, change, may, session } from '../api.js';
import { ago, instant } from '../format.js';
import { useLive } from '../live.js';
import { Field, FormDialog, textIn } from '../parts/dialog.js';
import { CursorPager, Loaded } from '../parts/states.js';

const EVERY_MS = 5000;
const SCOPES: readonly (readonly [KeyScope, string])[] = [
  ['enqueue', 'send messages'],
  ['dequeue', 'take and ack messages'],
  ['read', 'see queues, messages and settings'],
  ['admin', 'change everything'],
  ['metrics', 'read the metrics'],
];

interface Open {
  readonly kind: 'create' | 'rotate' | 'revoke';
  readonly name: string;
}

/** API keys: who may do what. A new secret is shown once. */
export function KeysPage(): JSX.Element {
  const [pages, setPages] = useState<readonly string[]>([]);
  const [open, setOpen] = useState<Open>();
  const [made, setMade] = useState<NewKeyAnswer>();
  const live = useLive<KeysAnswer>(admin(['keys'], { after: pages.at(-1) }), EVERY_MS);
  return (
    <>
      <div class="title">
        <h1>API keys</h1>
        {may('admin') && (
          <button type="button" class="primary" onClick={() => setOpen({ kind: 'create', name: '' })}>
            Create a key
          </button>
        )}
      </div>
      {session.value?.needsKey === false && (
        <p class="muted">This broker asks for no keys: it serves this machine only. Others on its database may.</p>
      )}
      {made !== undefined && (
        <section class="card secret" aria-label="The new secret">
          <p>
            The secret of <strong>{made.name}</strong>. Copy it now, because nobody can show it again.
          </p>
          <pre tabIndex={0} aria-label="Secret">
            {made.secret}
          </pre>
          <button type="button" onClick={() => setMade(undefined)}>
            I have it
          </button>
        </section>
      )}
      <Loaded live={live}>
        {({ keys, nextAfter }) => (
          <>
            {keys.length === 0 ? <p class="muted">No keys in the database.</p> : <Table keys={keys} onOpen={setOpen} />}
            <CursorPager of="keys" cursors={pages} nextAfter={nextAfter} onMove={setPages} />
          </>
        )}
      </Loaded>
      {open !== undefined && <Dialog open={open} onMade={setMade} onClose={() => setOpen(undefined)} />}
    </>
  );
}

function Table({ keys, onOpen }: { keys: readonly KeyAnswer[]; onOpen: (open: Open) => void }): JSX.Element {
  return (
    <div class="scroll" role="region" aria-label="API keys" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col">Key</th>
            <th scope="col">May</th>
            <th scope="col">Reaches</th>
            <th scope="col">Last used</th>
            <th scope="col">Expires</th>
            <th scope="col">
              <span class="hidden">Actions</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {keys.map(({ name, scopes, patterns, lastUsedAt, expiresAt, oldSecretUntil }) => (
            <tr key={name}>
              <th scope="row">
                {name}
                {oldSecretUntil !== null && <span class="badge">old secret until {instant(oldSecretUntil)}</span>}
              </th>
              <td>{scopes.join(', ')}</td>
              <td>{patterns.length === 0 ? 'everything' : patterns.join(', ')}</td>
              <td>{lastUsedAt === null ? 'never' : ago(lastUsedAt)}</td>
              <td>{expiresAt === null ? 'never' : ago(expiresAt)}</td>
              <td>
                {may('admin') && (
                  <span class="actions">
                    <button
                      type="button"
                      class="small"
                      aria-label={`Rotate ${name}`}
                      onClick={() => onOpen({ kind: 'rotate', name })}
                    >
                      Rotate
                    </button>
                    <button
                      type="button"
                      class="small danger-text"
                      aria-label={`Revoke ${name}`}
                      onClick={() => onOpen({ kind: 'revoke', name })}
                    >
                      Revoke
                    </button>
                  </span>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

interface DialogProps {
  readonly open: Open;
  readonly onMade: (key: NewKeyAnswer) => void;
  readonly onClose: () => void;
}

function Dialog({ open: { kind, name }, onMade, onClose }: DialogProps): JSX.Element {
  if (kind === 'create') return <CreateDialog onMade={onMade} onClose={onClose} />;
  const isRevoke = kind === 'revoke';
  return (
    <FormDialog
      title={`${isRevoke ? 'Revoke' : 'Rotate'} ${name}`}
      action={isRevoke ? 'Revoke' : 'Rotate'}
      isDangerous={isRevoke}
      confirmName={name}
      onClose={onClose}
      onSubmit={async () => {
        if (isRevoke) {
          await change('DELETE', admin(['keys', name]));
          return `${name} is revoked.`;
        }
        onMade(await change<NewKeyAnswer>('POST', admin(['keys', name, 'rotate'])));
        return `${name} has a new secret.`;
      }}
    >
      <p>
        {isRevoke
          ? 'Every broker refuses the key within three seconds. This cannot be undone.'
          : 'The key gets a new secret. The old one stays valid for a day.'}
      </p>
    </FormDialog>
  );
}

function CreateDialog({ onMade, onClose }: Pick<DialogProps, 'onMade' | 'onClose'>): JSX.Element {
  return (
    <FormDialog
      title="Create a key"
      action="Create"
      onClose={onClose}
      onSubmit={async (values) => {
        const patterns = (textIn(values, 'patterns') ?? '').split(/[\s,]+/).filter(Boolean);
        const expiresAt = textIn(values, 'expiresAt');
        const request: CreateKeyRequest = {
          name: textIn(values, 'name') ?? '',
          scopes: values.getAll('scope') as KeyScope[],
          patterns,
          ...(expiresAt !== undefined && { expiresAt: new Date(expiresAt).toISOString() }),
        };
        onMade(await change<NewKeyAnswer>('POST', admin(['keys']), request));
        return `Key ${request.name} exists.`;
      }}
    >
      <Field label="Name" name="name" required maxLength={80} autocomplete="off" />
      <fieldset>
        <legend>It may</legend>
        {SCOPES.map(([scope, meaning]) => (
          <label key={scope} class="check">
            <input type="checkbox" name="scope" value={scope} /> {scope}: <span class="muted">{meaning}</span>
          </label>
        ))}
      </fieldset>
      <Field
        label="Queues and topics that it reaches"
        name="patterns"
        help="Names, or beginnings of names with a star, such as orders.*. Everything when empty."
        autocomplete="off"
      />
      <Field label="Expires" name="expiresAt" type="datetime-local" />
    </FormDialog>
  );
}
