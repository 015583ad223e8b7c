import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { MessageAnswer } from '@rowmq/contract';
import { admin, may } from '../api.js';
import { visible } from '../body.js';
import { ago, duration, instant, plural } from '../format.js';
import { useLive } from '../live.js';
import { Body, Headers, MessageActions } from '../parts/message-view.js';
import { Loaded } from '../parts/states.js';
import { go, to } from '../router.js';
import { CAUSES } from '../words.js';

const EVERY_MS = 2000;

/** A step in a message's life. */
interface Step {
  readonly at: string | undefined;
  readonly text: JSX.Element | string;
}

/** One message: what is in it, and what happened to it. */
export function MessagePage({ id }: { id: string }): JSX.Element {
  const live = useLive<MessageAnswer>(admin(['messages', id]), EVERY_MS);
  return (
    <>
      <p class="crumbs">
        <a href={to(['queues'])}>Queues</a>
        {live.data?.deliveries.map(({ queue }) => (
          <span key={queue}>
            {' '}
            · <a href={to(['queues', queue])}>{queue}</a>
          </span>
        ))}
      </p>
      <h1>
        Message <span class="id">{id}</span>
      </h1>
      <Loaded live={live}>
        {(message) => (
          <>
            <section aria-labelledby="life">
              <h2 id="life">Its life</h2>
              <ol class="life">
                {lifeOf(message).map(({ at, text }, index) => (
                  <li key={index}>
                    <span class="when">
                      {at !== undefined && (
                        <time dateTime={at} title={instant(at)}>
                          {instant(at)} <span class="muted">({ago(at)})</span>
                        </time>
                      )}
                    </span>
                    <span>{text}</span>
                  </li>
                ))}
              </ol>
            </section>
            {may('admin') &&
              message.deliveries.map(({ queue, state, source }) => (
                <p key={queue} class="actions">
                  <MessageActions id={id} queue={queue} state={state} hasSource={source !== null} />
                </p>
              ))}
            <section class="card open" aria-label="Content">
              <Headers headers={message.headers} />
              <Body body={message.body} encoding={message.bodyEncoding} />
            </section>
          </>
        )}
      </Loaded>
    </>
  );
}

/** The steps that the database remembers, oldest first. */
function lifeOf(message: MessageAnswer): Step[] {
  const steps: Step[] = [];
  const { enqueuedAt, queue, topic, groupId, replayOf, deliveries, endings, settled } = message;
  const group = groupId === undefined ? '' : `, in the group ${visible(groupId)}`;
  steps.push({
    at: enqueuedAt,
    text: (
      <>
        {topic === null ? 'Enqueued to ' : 'Published to '}
        {topic === null ? <Queue name={queue} /> : <a href={to(['topics', topic])}>{topic}</a>}
        {group}
        {replayOf !== undefined && replayOf !== null && (
          <>
            , as a replay of <a href={to(['messages', replayOf])}>{replayOf}</a>
          </>
        )}
      </>
    ),
  });
  for (const delivery of deliveries) {
    for (const { from, at, cause, receiveCount, reason } of delivery.moves)
      steps.push({
        at,
        text: (
          <>
            Left <Queue name={from} /> after {plural(receiveCount, 'hand-out')}, because {CAUSES[cause]}
            {reason !== null && (
              <>
                : <q>{visible(reason)}</q>
              </>
            )}
          </>
        ),
      });
    steps.push(now(delivery));
  }
  for (const { queue: name, how } of endings)
    steps.push({
      at: undefined,
      text: (
        <>
          An operator {how} it in <Queue name={name} />
        </>
      ),
    });
  if (settled && endings.length === 0)
    steps.push({ at: undefined, text: 'Settled: a consumer acked it, or it expired. No queue owes it any more.' });
  return steps;
}

/** The present state of a delivery. */
function now(delivery: MessageAnswer['deliveries'][number]): Step {
  const { queue, state, receiveCount, availableAt, expiresAt, lastNackReason, consumer, leasedAt } = delivery;
  const attempts = receiveCount === 0 ? '' : `, handed out ${receiveCount}×`;
  const left = duration(Math.max(0, (Date.parse(availableAt) - Date.now()) / 1000));
  const failed = lastNackReason !== null && (
    <>
      , last failed because <q>{visible(lastNackReason)}</q>
    </>
  );
  const states = {
    ready: <>Ready in </>,
    delayed: <>Comes in {left} in </>,
    waiting: <>Waits behind others of its group in </>,
    leased: (
      <>
        Leased by {visible(consumer ?? 'a consumer that this broker does not know')}, for {left} more, in{' '}
      </>
    ),
    expired: <>Expired in </>,
  };
  return {
    at: state === 'leased' ? (leasedAt ?? undefined) : state === 'ready' ? availableAt : undefined,
    text: (
      <>
        {states[state]}
        <Queue name={queue} />
        {attempts}
        {failed}. It expires {ago(expiresAt)}.
      </>
    ),
  };
}

function Queue({ name }: { name: string | null }): JSX.Element {
  return name === null ? <em>a deleted queue</em> : <a href={to(['queues', name])}>{name}</a>;
}

/** Finds a message by its id. */
export function FindMessagePage(): JSX.Element {
  const [id, setId] = useState('');
  return (
    <>
      <h1>Find a message</h1>
      <form
        class="card"
        onSubmit={(event) => {
          event.preventDefault();
          go(['messages', id.trim()]);
        }}
      >
        <label for="id">Id of the message</label>
        <input
          id="id"
          value={id}
          onInput={(event) => setId(event.currentTarget.value)}
          required
          spellcheck={false}
          autocomplete="off"
        />
        <p class="buttons start">
          <button type="submit" class="primary">
            Show its life
          </button>
        </p>
      </form>
    </>
  );
}
