import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { PutScheduleRequest, RunScheduleAnswer, ScheduleAnswer, SchedulesAnswer } from '@rowmq/contract';
import { admin, change, may } from '../api.js';
import { ago, duration, instant } from '../format.js';
import { useLive } from '../live.js';
import { Area, Choice, Field, FormDialog, messageOf, numberIn, textIn } from '../parts/dialog.js';
import { CursorPager, Loaded } from '../parts/states.js';
import { toast } from '../parts/toasts.js';
import { to } from '../router.js';

const EVERY_MS = 5000;

type Open = { readonly kind: 'delete' | 'put'; readonly schedule: ScheduleAnswer | undefined };

/** Schedules: when each one ran, when it runs next, and why not. */
export function SchedulesPage(): JSX.Element {
  const [pages, setPages] = useState<readonly string[]>([]);
  const [open, setOpen] = useState<Open>();
  const live = useLive<SchedulesAnswer>(admin(['schedules'], { after: pages.at(-1) }), EVERY_MS);
  return (
    <>
      <div class="title">
        <h1>Schedules</h1>
        {may('admin') && (
          <button type="button" class="primary" onClick={() => setOpen({ kind: 'put', schedule: undefined })}>
            Create a schedule
          </button>
        )}
      </div>
      <Loaded live={live}>
        {({ schedules, nextAfter }) => (
          <>
            {schedules.length === 0 ? (
              <p class="muted">No schedules. One enqueues or publishes a message again and again.</p>
            ) : (
              <ul class="jobs">
                {schedules.map((schedule) => (
                  <Schedule key={schedule.name} schedule={schedule} onOpen={setOpen} />
                ))}
              </ul>
            )}
            <CursorPager of="schedules" cursors={pages} nextAfter={nextAfter} onMove={setPages} />
          </>
        )}
      </Loaded>
      {open?.kind === 'put' && <PutDialog schedule={open.schedule} onClose={() => setOpen(undefined)} />}
      {open?.kind === 'delete' && open.schedule !== undefined && (
        <DeleteDialog name={open.schedule.name} onClose={() => setOpen(undefined)} />
      )}
    </>
  );
}

function Schedule({ schedule, onOpen }: { schedule: ScheduleAnswer; onOpen: (open: Open) => void }): JSX.Element {
  const { name, cron, everySeconds, timeZone, queue, topic, enabled, nextRunAt, lastRun, lastFailure } = schedule;
  const [isRunning, setRunning] = useState(false);
  const run = (): void => {
    setRunning(true);
    void change<RunScheduleAnswer>('POST', admin(['schedules', name, 'run']))
      .then(
        ({ messageId }) => toast(`${name} ran: message ${messageId}.`),
        (failure: Error) => toast(messageOf(failure)),
      )
      .finally(() => setRunning(false));
  };
  return (
    <li class="card">
      <p class="job-title">
        <strong>{name}</strong>{' '}
        <span class={`badge ${enabled ? 'good' : 'warn'}`}>{enabled ? 'enabled' : 'disabled'}</span>
      </p>
      <p>
        {cron === null ? `Every ${duration(everySeconds ?? 0)}` : <code>{cron}</code>}
        {cron !== null && ` in ${timeZone ?? 'UTC'}`}, to{' '}
        {queue === null ? (
          <a href={to(['topics', topic ?? ''])}>{topic}</a>
        ) : (
          <a href={to(['queues', queue])}>{queue}</a>
        )}
      </p>
      <p class="muted">
        {nextRunAt === null ? 'Runs no more' : `Next ${ago(nextRunAt)}, ${instant(nextRunAt)}`} ·{' '}
        {lastRun === null ? (
          'never ran yet'
        ) : (
          <>
            last {ago(lastRun.tick)}: <a href={to(['messages', lastRun.messageId])}>its message</a>
          </>
        )}
      </p>
      {lastFailure !== null && <p class="fault">{lastFailure}</p>}
      {may('admin') && (
        <p class="actions">
          <button type="button" aria-label={`Run now: ${name}`} disabled={isRunning} onClick={run}>
            Run now
          </button>
          <button type="button" aria-label={`Change ${name}`} onClick={() => onOpen({ kind: 'put', schedule })}>
            Change
          </button>
          <button
            type="button"
            class="danger-text"
            aria-label={`Delete ${name}`}
            onClick={() => onOpen({ kind: 'delete', schedule })}
          >
            Delete
          </button>
        </p>
      )}
    </li>
  );
}

function PutDialog({ schedule, onClose }: { schedule: ScheduleAnswer | undefined; onClose: () => void }): JSX.Element {
  return (
    <FormDialog
      title={schedule === undefined ? 'Create a schedule' : `Change ${schedule.name}`}
      action="Save"
      onClose={onClose}
      onSubmit={async (values) => {
        const name = schedule?.name ?? textIn(values, 'name') ?? '';
        const target = textIn(values, 'target') ?? '';
        const cron = textIn(values, 'cron');
        const everySeconds = numberIn(values, 'everySeconds');
        const timeZone = textIn(values, 'timeZone');
        const request: PutScheduleRequest = {
          message: { ...schedule?.message, body: values.get('body') as string },
          enabled: textIn(values, 'enabled') === 'true',
          missed: textIn(values, 'missed') as 'skip' | 'last' | 'all',
          ...(textIn(values, 'kind') === 'topic' ? { topic: target } : { queue: target }),
          ...(cron !== undefined && { cron }),
          ...(everySeconds !== undefined && { everySeconds }),
          ...(timeZone !== undefined && { timeZone }),
        };
        await change('PUT', admin(['schedules', name]), request);
        return `Saved ${name}.`;
      }}
    >
      {schedule === undefined && <Field label="Name" name="name" required maxLength={80} autocomplete="off" />}
      <div class="row">
        <Field
          label="Cron"
          name="cron"
          value={schedule?.cron ?? ''}
          placeholder="30 3 * * *"
          help="Minute, hour, day, month, day of the week"
        />
        <Field label="Time zone" name="timeZone" value={schedule?.timeZone ?? ''} placeholder="UTC" />
        <Field
          label="Or every so many seconds"
          name="everySeconds"
          type="number"
          min={1}
          value={schedule?.everySeconds ?? ''}
        />
      </div>
      <div class="row">
        <Choice
          label="Sends to a"
          name="kind"
          value={schedule !== undefined && schedule.topic !== null ? 'topic' : 'queue'}
          options={[
            ['queue', 'queue'],
            ['topic', 'topic'],
          ]}
        />
        <Field label="Its name" name="target" required value={schedule?.queue ?? schedule?.topic ?? ''} />
      </div>
      <Area label="Body" name="body" rows={4} required value={schedule?.message.body ?? ''} spellcheck={false} />
      <div class="row">
        <Choice
          label="Ticks that were missed"
          name="missed"
          value={schedule?.missed ?? 'skip'}
          options={[
            ['skip', 'skip them'],
            ['last', 'send the last one'],
            ['all', 'send all of 24 hours'],
          ]}
        />
        <Choice
          label="State"
          name="enabled"
          value={String(schedule?.enabled ?? true)}
          options={[
            ['true', 'enabled'],
            ['false', 'disabled'],
          ]}
        />
      </div>
    </FormDialog>
  );
}

function DeleteDialog({ name, onClose }: { name: string; onClose: () => void }): JSX.Element {
  return (
    <FormDialog
      title={`Delete ${name}`}
      action="Delete"
      isDangerous
      confirmName={name}
      onClose={onClose}
      onSubmit={async () => {
        await change('DELETE', admin(['schedules', name]));
        return `${name} is deleted.`;
      }}
    >
      <p>The schedule ends. Messages that it sent stay.</p>
    </FormDialog>
  );
}
