import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { BrowseAnswer } from '@rowmq/contract';
import { admin, change } from '../api.js';
import { showBody, visible } from '../body.js';
import { number } from '../format.js';
import { Field, FormDialog, textIn } from './dialog.js';

/** A body as plain text, whatever is in it. */
export function Body({ body, encoding }: { body: string; encoding: 'utf8' | 'base64' }): JSX.Element {
  const { kind, text, bytes } = showBody(body, encoding);
  return (
    <figure class="body">
      <figcaption>
        Body <span class="muted">{kind === 'empty' ? 'empty' : `${kind}, ${number(bytes)} bytes`}</span>
      </figcaption>
      {kind !== 'empty' && (
        <pre tabIndex={0} aria-label="Body">
          {text}
        </pre>
      )}
    </figure>
  );
}

export function Headers({ headers }: { headers: Record<string, string> }): JSX.Element | null {
  const entries = Object.entries(headers);
  if (entries.length === 0) return null;
  return (
    <dl class="pairs">
      {entries.map(([name, value]) => (
        <div key={name}>
          <dt>{visible(name)}</dt>
          <dd>{visible(value)}</dd>
        </div>
      ))}
    </dl>
  );
}

type One = 'ack' | 'release' | 'redrive' | 'move';

const ACTIONS: Record<One, { label: string; text: string; done: string; isDangerous?: true }> = {
  ack: { label: 'Settle', text: 'It is never delivered again.', done: 'The message is settled.', isDangerous: true },
  release: {
    label: 'Make ready',
    text: 'Consumers get it now. A consumer that holds it loses its lease.',
    done: 'The message is ready.',
  },
  redrive: {
    label: 'Redrive',
    text: 'It goes back to the queue that it left first.',
    done: 'The message was redriven.',
  },
  move: { label: 'Move', text: 'It goes to another queue.', done: 'The message was moved.' },
};

/** The actions on a single message of a queue. */
export function MessageActions({
  id,
  queue,
  state,
  hasSource,
}: {
  id: string;
  queue: string;
  state: BrowseAnswer['messages'][number]['state'];
  hasSource: boolean;
}): JSX.Element {
  const [open, setOpen] = useState<One>();
  const shown: One[] = [
    ...(hasSource ? (['redrive'] as const) : []),
    ...(state === 'leased' || state === 'delayed' ? (['release'] as const) : []),
    'move',
    'ack',
  ];
  return (
    <>
      {shown.map((action) => (
        <button
          key={action}
          type="button"
          class={ACTIONS[action].isDangerous ? 'danger-text' : ''}
          onClick={() => setOpen(action)}
        >
          {ACTIONS[action].label}
        </button>
      ))}
      {open !== undefined && (
        <FormDialog
          title={`${ACTIONS[open].label} a message of ${queue}`}
          action={ACTIONS[open].label}
          isDangerous={ACTIONS[open].isDangerous ?? false}
          onClose={() => setOpen(undefined)}
          onSubmit={async (values) => {
            const toQueue = textIn(values, 'toQueue');
            await change('POST', admin(['messages', id, open]), { queue, ...(open === 'move' && { toQueue }) });
            return ACTIONS[open].done;
          }}
        >
          <p>
            <span class="id">{id}</span>: {ACTIONS[open].text}
          </p>
          {open === 'move' && <Field label="To the queue" name="toQueue" required autocomplete="off" />}
        </FormDialog>
      )}
    </>
  );
}
