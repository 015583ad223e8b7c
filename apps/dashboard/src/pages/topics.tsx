import type { JSX } from 'preact';
import { useRef, useState } from 'preact/hooks';
import type { PublishAnswer, TopicAnswer, TopicsAnswer } from '@rowmq/contract';
import { admin, change, may, RepeatKey } from '../api.js';
import { plural } from '../format.js';
import { useLive } from '../live.js';
import { Area, Field, FormDialog, textIn } from '../parts/dialog.js';
import { headersIn } from '../parts/queue-actions.js';
import { Loaded } from '../parts/states.js';
import { to } from '../router.js';

const EVERY_MS = 5000;

interface Open {
  readonly kind: 'create' | 'publish' | 'subscribe' | 'unsubscribe' | 'delete';
  readonly topic: string;
  readonly queue?: string;
}

/** Topics, and the queues that get what is published to each. */
export function TopicsPage({ name }: { name: string | undefined }): JSX.Element {
  const live = useLive<TopicsAnswer>(admin(['topics']), EVERY_MS);
  const [open, setOpen] = useState<Open>();
  const [search, setSearch] = useState(name ?? '');
  return (
    <>
      <div class="title">
        <h1>Topics</h1>
        {may('admin') && (
          <button type="button" class="primary" onClick={() => setOpen({ kind: 'create', topic: '' })}>
            Create a topic
          </button>
        )}
      </div>
      <Loaded live={live}>
        {({ topics }) => {
          const shown = topics.filter((topic) => topic.name.toLowerCase().includes(search.toLowerCase()));
          return (
            <>
              {topics.length > 0 && (
                <p class="search">
                  <label for="search" class="hidden">
                    Search topics by name
                  </label>
                  <input
                    id="search"
                    type="search"
                    placeholder="Search topics by name"
                    value={search}
                    onInput={(event) => setSearch(event.currentTarget.value)}
                  />
                  <span class="muted" role="status">
                    {plural(shown.length, 'topic')}
                  </span>
                </p>
              )}
              {topics.length === 0 && (
                <p class="muted">No topics. A topic copies each message to the queues that subscribe to it.</p>
              )}
              <ul class="jobs">
                {shown.slice(0, MOST_SHOWN).map((topic) => (
                  <Topic key={topic.name} topic={topic} onOpen={setOpen} />
                ))}
              </ul>
              {shown.length > MOST_SHOWN && <p class="muted">Search to see the others.</p>}
            </>
          );
        }}
      </Loaded>
      {open !== undefined && <Dialog open={open} onClose={() => setOpen(undefined)} />}
    </>
  );
}

const MOST_SHOWN = 100;

function Topic({ topic, onOpen }: { topic: TopicAnswer; onOpen: (open: Open) => void }): JSX.Element {
  const { name, subscriptions } = topic;
  const button = (kind: Open['kind'], label: string, isDanger = false): JSX.Element => (
    <button
      type="button"
      class={isDanger ? 'danger-text' : ''}
      aria-label={`${label}: ${name}`}
      onClick={() => onOpen({ kind, topic: name })}
    >
      {label}
    </button>
  );
  return (
    <li class="card">
      <p class="job-title">
        <strong>{name}</strong> <span class="muted">{plural(subscriptions.length, 'subscription')}</span>
      </p>
      {subscriptions.length > 0 && (
        <ul class="plain">
          {subscriptions.map(({ queue, filter }) => (
            <li key={queue}>
              <a href={to(['queues', queue])}>{queue}</a>{' '}
              {filter === null ? <span class="muted">every message</span> : <code>{JSON.stringify(filter)}</code>}{' '}
              {may('admin') && (
                <button
                  type="button"
                  class="small danger-text"
                  aria-label={`Unsubscribe ${queue} from ${name}`}
                  onClick={() => onOpen({ kind: 'unsubscribe', topic: name, queue })}
                >
                  Unsubscribe
                </button>
              )}
            </li>
          ))}
        </ul>
      )}
      <p class="actions">
        {may('enqueue') && button('publish', 'Publish')}
        {may('admin') && button('subscribe', 'Subscribe a queue')}
        {may('admin') && button('delete', 'Delete', true)}
      </p>
    </li>
  );
}

function Dialog({ open: { kind, topic, queue = '' }, onClose }: { open: Open; onClose: () => void }): JSX.Element {
  const repeat = useRef(new RepeatKey());
  switch (kind) {
    case 'create':
      return (
        <FormDialog
          title="Create a topic"
          action="Create"
          onClose={onClose}
          onSubmit={async (values) => {
            const name = textIn(values, 'name') ?? '';
            await change('PUT', admin(['topics', name]), {});
            return `Topic ${name} exists.`;
          }}
        >
          <Field label="Name" name="name" required maxLength={80} autocomplete="off" />
        </FormDialog>
      );
    case 'publish':
      return (
        <FormDialog
          title={`Publish to ${topic}`}
          action="Publish"
          onClose={onClose}
          onSubmit={async (values) => {
            const headers = headersIn(textIn(values, 'headers') ?? '');
            const message = {
              body: values.get('body') as string,
              ...(Object.keys(headers).length > 0 && { headers }),
            };
            const path = `v1/topics/${encodeURIComponent(topic)}/messages`;
            const { messages } = await change<PublishAnswer>(
              'POST',
              path,
              { messages: [message] },
              repeat.current.headersFor(message),
            );
            return `Published to ${plural(messages[0]?.subscriptions ?? 0, 'queue')}.`;
          }}
        >
          <Area label="Body" name="body" rows={6} required spellcheck={false} />
          <Area label="Headers" name="headers" rows={2} help="One a line, such as event: order-created" />
        </FormDialog>
      );
    case 'subscribe':
      return (
        <FormDialog
          title={`Subscribe a queue to ${topic}`}
          action="Subscribe"
          onClose={onClose}
          onSubmit={async (values) => {
            const name = textIn(values, 'queue') ?? '';
            const filter = textIn(values, 'filter');
            const request = { filter: filter === undefined ? null : (JSON.parse(filter) as object) };
            await change('PUT', admin(['topics', topic, 'subscriptions', name]), request);
            return `${name} gets what is published to ${topic}.`;
          }}
        >
          <Field label="Queue" name="queue" required autocomplete="off" />
          <Area
            label="Filter"
            name="filter"
            rows={3}
            help={'Headers and their values as JSON, such as {"event": ["order-created"]}. Every message when empty.'}
            spellcheck={false}
          />
        </FormDialog>
      );
    default:
      return (
        <FormDialog
          title={kind === 'delete' ? `Delete ${topic}` : `Unsubscribe ${queue} from ${topic}`}
          action={kind === 'delete' ? 'Delete' : 'Unsubscribe'}
          isDangerous
          confirmName={topic}
          onClose={onClose}
          onSubmit={async () => {
            const rest = kind === 'delete' ? [] : ['subscriptions', queue];
            await change('DELETE', admin(['topics', topic, ...rest]));
            return kind === 'delete' ? `${topic} is deleted.` : `${queue} is unsubscribed.`;
          }}
        >
          <p>Messages that were published stay in the queues that have them.</p>
        </FormDialog>
      );
  }
}
