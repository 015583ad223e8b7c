import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { PutQueueRequest, QueueAnswer, QueueSettings } from '@rowmq/contract';
import { admin, change, may } from '../api.js';
import { duration, instant, number } from '../format.js';
import { Choice, Field, FormDialog, numberIn, textIn } from './dialog.js';

interface Setting {
  readonly name: keyof QueueSettings;
  readonly label: string;
  readonly meaning: string;
  readonly kind: 'seconds' | 'count' | 'queue' | 'yes-no' | 'ordering';
}

const SETTINGS: readonly Setting[] = [
  {
    name: 'leaseSeconds',
    label: 'Lease',
    meaning: 'A consumer has this long to ack a message. Then others get it. Consumers may ask for another time.',
    kind: 'seconds',
  },
  {
    name: 'messageTtlSeconds',
    label: 'Time to live',
    meaning: 'A message that nobody has acked this long after it became available expires.',
    kind: 'seconds',
  },
  {
    name: 'delaySeconds',
    label: 'Delay',
    meaning: 'New messages wait this long before consumers get them, unless the producer says otherwise.',
    kind: 'seconds',
  },
  {
    name: 'maxReceives',
    label: 'Hand-outs at most',
    meaning: 'After so many hand-outs without an ack, a message goes to the dead-letter queue.',
    kind: 'count',
  },
  {
    name: 'deadLetterQueue',
    label: 'Dead-letter queue',
    meaning: 'Where messages go that fail too often, or that a consumer rejects.',
    kind: 'queue',
  },
  {
    name: 'deadLetterExpired',
    label: 'Expired ones too',
    meaning: 'Whether messages that expire go to the dead-letter queue, instead of away.',
    kind: 'yes-no',
  },
  {
    name: 'maxDepth',
    label: 'Depth at most',
    meaning: 'An enqueue beyond this depth is refused.',
    kind: 'count',
  },
  {
    name: 'maxMessagesPerSecond',
    label: 'Messages a second at most',
    meaning: 'Each broker accepts no more than this for the queue.',
    kind: 'count',
  },
  {
    name: 'maxLongPolls',
    label: 'Waiting dequeues at most',
    meaning: 'Each broker lets no more consumers of the queue wait than this.',
    kind: 'count',
  },
  {
    name: 'deduplicationSeconds',
    label: 'Deduplication',
    meaning: 'For this long, a second message with the same deduplicationId is not stored.',
    kind: 'seconds',
  },
  {
    name: 'ordering',
    label: 'Order',
    meaning: 'group: messages of one group are handed out one after the other. It never changes.',
    kind: 'ordering',
  },
];

/** The settings of a queue and what each one does. */
export function Settings({ queue }: { queue: QueueAnswer }): JSX.Element {
  const [isOpen, setOpen] = useState(false);
  return (
    <>
      {may('admin') && (
        <p>
          <button type="button" onClick={() => setOpen(true)}>
            Change settings
          </button>
        </p>
      )}
      <div class="scroll" role="region" aria-label="Settings" tabIndex={0}>
        <table class="settings">
          <thead>
            <tr>
              <th scope="col">Setting</th>
              <th scope="col">Value</th>
              <th scope="col">Meaning</th>
            </tr>
          </thead>
          <tbody>
            {SETTINGS.map((setting) => (
              <tr key={setting.name}>
                <th scope="row">
                  {setting.label} <code>{setting.name}</code>
                </th>
                <td>{shown(setting, queue)}</td>
                <td>{setting.meaning}</td>
              </tr>
            ))}
            <tr>
              <th scope="row">Created</th>
              <td>{instant(queue.createdAt)}</td>
              <td />
            </tr>
          </tbody>
        </table>
      </div>
      {isOpen && <SettingsDialog queue={queue} onClose={() => setOpen(false)} />}
    </>
  );
}

function shown({ name, kind }: Setting, queue: QueueAnswer): string {
  const value = queue[name];
  if (value === null) return kind === 'ordering' ? 'none' : kind === 'queue' ? 'none' : 'no limit';
  if (kind === 'seconds') return duration(value as number);
  if (kind === 'yes-no') return value === true ? 'yes' : 'no';
  return typeof value === 'number' ? number(value) : String(value);
}

function SettingsDialog({ queue, onClose }: { queue: QueueAnswer; onClose: () => void }): JSX.Element {
  return (
    <FormDialog
      title={`Settings of ${queue.name}`}
      action="Save"
      onClose={onClose}
      onSubmit={async (values) => {
        const wanted = Object.fromEntries(
          SETTINGS.filter(({ kind }) => kind !== 'ordering').map(({ name, kind }) => [name, read(values, name, kind)]),
        );
        // Only what was changed, so that the audit says so, and another change meanwhile stays.
        const changed = Object.entries(wanted).filter(([name, value]) => value !== queue[name as keyof QueueSettings]);
        if (changed.length === 0) return undefined;
        await change('PUT', admin(['queues', queue.name]), Object.fromEntries(changed) as PutQueueRequest);
        return `Saved ${changed.map(([name]) => name).join(', ')}.`;
      }}
    >
      {SETTINGS.filter(({ kind }) => kind !== 'ordering').map(({ name, label, meaning, kind }) => {
        const value = queue[name];
        const field = { key: name, name, label: kind === 'seconds' ? `${label}, in seconds` : label, help: meaning };
        if (kind === 'yes-no')
          return (
            <Choice
              {...field}
              value={String(value)}
              options={[
                ['false', 'no'],
                ['true', 'yes'],
              ]}
            />
          );
        if (kind === 'queue') return <Field {...field} value={(value as string | null) ?? ''} placeholder="none" />;
        return (
          <Field
            {...field}
            type="number"
            min={0}
            value={(value as number | null) ?? ''}
            placeholder="no limit"
            required={kind === 'seconds'}
          />
        );
      })}
    </FormDialog>
  );
}

function read(values: FormData, name: string, kind: Setting['kind']): string | number | boolean | null {
  if (kind === 'yes-no') return textIn(values, name) === 'true';
  if (kind === 'queue') return textIn(values, name) ?? null;
  return numberIn(values, name) ?? null;
}
