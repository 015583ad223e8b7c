import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { BrowseAnswer, DeliveryState, MessageFilter, QueueAnswer } from '@rowmq/contract';
import { admin, change, may } from '../api.js';
import { ago, number } from '../format.js';
import { useLive } from '../live.js';
import { go, place, refine, to } from '../router.js';
import { Field, FormDialog, numberIn, textIn } from './dialog.js';
import { Body, Headers, MessageActions } from './message-view.js';
import { RedriveFields } from './queue-actions.js';
import { CursorPager, Loaded } from './states.js';
import { visible } from '../body.js';
import { CAUSES } from '../words.js';

const EVERY_MS = 2000;
/** Pages behind the first one change less. */
const BEHIND_MS = 10_000;
const ROWS = 20;
const PREVIEW_CHARS = 140;

const STATES: readonly (readonly [DeliveryState, string])[] = [
  ['ready', 'Ready'],
  ['leased', 'Leased'],
  ['delayed', 'Delayed'],
  ['waiting', 'Waiting'],
];
const FILTERS = ['source', 'reason', 'header', 'body', 'enqueuedFrom', 'enqueuedTo'] as const;

type Message = BrowseAnswer['messages'][number];

/** The messages of a queue by state, a page at a time, without leasing them. */
export function Messages({ queue }: { queue: QueueAnswer }): JSX.Element {
  const { query } = place.value;
  const state = (query.get('state') ?? 'ready') as DeliveryState;
  const filter: Partial<MessageFilter> = Object.fromEntries(
    FILTERS.flatMap((name) => {
      const value = query.get(name);
      return value === null || value === '' ? [] : [[name, value]];
    }),
  );
  const isFiltered = Object.keys(filter).length > 0;
  // The cursors of the pages before this one, which the address need not keep.
  const [cursors, setCursors] = useState<readonly string[]>([]);
  const after = cursors.at(-1);
  const live = useLive<BrowseAnswer>(
    admin(['queues', queue.name, 'messages'], { state, limit: ROWS, after, ...filter }),
    after === undefined ? EVERY_MS : BEHIND_MS,
  );
  const show = (changes: Record<string, string | undefined>): void => {
    setCursors([]);
    refine(changes);
  };
  const shown = STATES.filter(([name]) => name !== 'waiting' || queue.ordering !== null);
  return (
    <section aria-label="Messages">
      <div class="segments" role="group" aria-label="State of the messages">
        {shown.map(([name, label]) => (
          <button key={name} type="button" aria-pressed={name === state} onClick={() => show({ state: name })}>
            {label} <span class="count">{number(queue.stats[name])}</span>
          </button>
        ))}
      </div>
      <Filter queue={queue.name} filter={filter} onFilter={show} />
      <Loaded live={live}>
        {({ messages, examined, nextAfter }) => (
          <>
            {messages.length === 0 ? (
              <p class="muted">
                {isFiltered
                  ? `None of ${number(examined)} messages that this page looked at is selected.`
                  : `No message is ${state}.`}
              </p>
            ) : (
              <ul class="messages">
                {messages.map((message) => (
                  <li key={message.id}>
                    <Row message={message} queue={queue.name} />
                  </li>
                ))}
              </ul>
            )}
            <CursorPager of="messages" cursors={cursors} nextAfter={nextAfter} showsPage onMove={setCursors} />
          </>
        )}
      </Loaded>
    </section>
  );
}

function Row({ message, queue }: { message: Message; queue: string }): JSX.Element {
  const { id, body, bodyEncoding, receiveCount, enqueuedAt, lastNackReason, source } = message;
  const preview = bodyEncoding === 'base64' ? 'binary' : visible(body.slice(0, PREVIEW_CHARS));
  const lastMove = message.moves.at(-1);
  const reason = lastMove?.reason ?? lastNackReason;
  return (
    <details>
      <summary>
        <span class="id">{id}</span>
        <span class="preview">{preview}</span>
        <span class="facts">
          {ago(enqueuedAt)}
          {receiveCount > 0 && ` · handed out ${receiveCount}×`}
          {source !== null && ` · from ${source}`}
          {lastMove !== undefined && ` · moved because ${CAUSES[lastMove.cause]}`}
          {reason !== null && `: ${visible(reason)}`}
          {message.consumer !== undefined && ` · held by ${visible(message.consumer ?? 'somebody')}`}
        </span>
      </summary>
      <div class="open">
        <Headers headers={message.headers} />
        <Body body={body} encoding={bodyEncoding} />
        <p class="actions">
          <a class="button" href={to(['messages', id])}>
            Its life
          </a>
          {may('admin') && <MessageActions id={id} queue={queue} state={message.state} hasSource={source !== null} />}
        </p>
      </div>
    </details>
  );
}

function Filter({
  queue,
  filter,
  onFilter,
}: {
  queue: string;
  filter: Partial<MessageFilter>;
  onFilter: (changes: Record<string, string | undefined>) => void;
}): JSX.Element {
  const [open, setOpen] = useState<'redrive' | 'drop'>();
  const isFiltered = Object.keys(filter).length > 0;
  const conditions = Object.entries(filter)
    .map(([name, value]) => `${name}: ${value}`)
    .join(', ');
  return (
    <details class="filter" open={isFiltered}>
      <summary>Filter{isFiltered && <span class="muted"> {conditions}</span>}</summary>
      <form
        key={conditions}
        onSubmit={(event) => {
          event.preventDefault();
          const values = new FormData(event.currentTarget);
          onFilter(
            Object.fromEntries(
              FILTERS.map((name) => {
                const value = textIn(values, name);
                const isTime = name === 'enqueuedFrom' || name === 'enqueuedTo';
                return [name, value === undefined || !isTime ? value : new Date(value).toISOString()];
              }),
            ),
          );
        }}
      >
        <div class="row">
          <Field label="Left this queue first" name="source" value={filter.source ?? ''} autocomplete="off" />
          <Field label="Reason contains" name="reason" value={filter.reason ?? ''} autocomplete="off" />
          <Field label="Header, name or name=value" name="header" value={filter.header ?? ''} autocomplete="off" />
          <Field label="Body contains" name="body" value={filter.body ?? ''} autocomplete="off" />
          <Field
            label="Enqueued from"
            name="enqueuedFrom"
            type="datetime-local"
            step={1}
            value={localTime(filter.enqueuedFrom)}
          />
          <Field
            label="and before"
            name="enqueuedTo"
            type="datetime-local"
            step={1}
            value={localTime(filter.enqueuedTo)}
          />
        </div>
        <p class="buttons start">
          <button type="submit" class="primary">
            Apply
          </button>
          {isFiltered && (
            <button
              type="button"
              onClick={() => onFilter(Object.fromEntries(FILTERS.map((name) => [name, undefined])))}
            >
              Clear
            </button>
          )}
          {isFiltered && may('admin') && (
            <>
              <button type="button" onClick={() => setOpen('redrive')}>
                Redrive these
              </button>
              <button type="button" class="danger-text" onClick={() => setOpen('drop')}>
                Drop these
              </button>
            </>
          )}
        </p>
      </form>
      {open !== undefined && (
        <FilteredDialog
          kind={open}
          queue={queue}
          filter={filter}
          conditions={conditions}
          onClose={() => setOpen(undefined)}
        />
      )}
    </details>
  );
}

function FilteredDialog({
  kind,
  queue,
  filter,
  conditions,
  onClose,
}: {
  kind: 'redrive' | 'drop';
  queue: string;
  filter: Partial<MessageFilter>;
  conditions: string;
  onClose: () => void;
}): JSX.Element {
  const isDrop = kind === 'drop';
  return (
    <FormDialog
      title={`${isDrop ? 'Drop' : 'Redrive'} messages of ${queue}`}
      action={isDrop ? 'Drop' : 'Redrive'}
      isDangerous={isDrop}
      confirmName={queue}
      onClose={onClose}
      onSubmit={async (values) => {
        await change('POST', admin(['queues', queue, kind]), {
          filter,
          maxMessages: numberIn(values, 'maxMessages'),
          ...(!isDrop && {
            toQueue: textIn(values, 'toQueue'),
            messagesPerSecond: numberIn(values, 'messagesPerSecond'),
          }),
        });
        go(['queues', queue, 'jobs']);
        return `The ${kind} has begun.`;
      }}
    >
      <p>
        {isDrop ? 'Removes for good' : 'Moves'} every message that no consumer holds and that has{' '}
        <strong>{conditions}</strong>.
      </p>
      {isDrop ? (
        <Field label="Messages at most" name="maxMessages" type="number" min={1} placeholder="all" />
      ) : (
        <RedriveFields />
      )}
    </FormDialog>
  );
}

/** A time as the field wants it: in the reader's zone, without one. */
function localTime(at: string | undefined): string {
  if (at === undefined) return '';
  const time = new Date(at);
  // The address of a page may hold anything, which the broker refuses.
  if (Number.isNaN(time.getTime())) return '';
  return new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}
