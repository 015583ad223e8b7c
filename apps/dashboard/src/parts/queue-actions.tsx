import type { JSX } from 'preact';
import { useRef, useState } from 'preact/hooks';
import type { JobAnswer, PauseSide, QueueAnswer, ReplayAnswer, ReplayRequest } from '@rowmq/contract';
import { admin, change, may, RepeatKey } from '../api.js';
import { plural } from '../format.js';
import { go } from '../router.js';
import { Area, Choice, Field, FormDialog, messageOf, numberIn, textIn } from './dialog.js';

type Action = 'send' | 'pause' | 'resume' | 'purge' | 'redrive' | 'replay' | 'delete';

/** A call of a replay ends after ten seconds. This many calls in one go are over half an hour. */
const MOST_REPLAY_CALLS = 200;

interface DialogProps {
  readonly queue: QueueAnswer;
  readonly onClose: () => void;
}

/** The actions on a queue. Each dialog but the first wants its name typed. */
export function QueueActions({ queue }: { queue: QueueAnswer }): JSX.Element | null {
  const [open, setOpen] = useState<Action>();
  const isPaused = queue.paused || queue.producersPaused;
  const isAdmin = may('admin');
  const actions: readonly (readonly [Action, string, boolean])[] = [
    ['send', 'Send a message', may('enqueue')],
    ['pause', 'Pause', isAdmin && !(queue.paused && queue.producersPaused)],
    ['resume', 'Resume', isAdmin && isPaused],
    ['redrive', 'Redrive', isAdmin],
    ['replay', 'Replay', isAdmin],
    ['purge', 'Purge', isAdmin],
    ['delete', 'Delete', isAdmin],
  ];
  const Dialog = open === undefined ? undefined : DIALOGS[open];
  return (
    <>
      <div class="actions">
        {actions.map(
          ([action, label, isShown]) =>
            isShown && (
              <button
                key={action}
                type="button"
                class={action === 'send' ? 'primary' : action === 'delete' || action === 'purge' ? 'danger-text' : ''}
                onClick={() => setOpen(action)}
              >
                {label}
              </button>
            ),
        )}
      </div>
      {Dialog !== undefined && <Dialog queue={queue} onClose={() => setOpen(undefined)} />}
    </>
  );
}

const DIALOGS: Record<Action, (props: DialogProps) => JSX.Element> = {
  send: SendDialog,
  pause: PauseDialog,
  resume: ResumeDialog,
  purge: PurgeDialog,
  redrive: RedriveDialog,
  replay: ReplayDialog,
  delete: DeleteDialog,
};

function SendDialog({ queue: { name }, onClose }: DialogProps): JSX.Element {
  const repeat = useRef(new RepeatKey());
  return (
    <FormDialog
      title={`Send a message to ${name}`}
      action="Send"
      onClose={onClose}
      onSubmit={async (values) => {
        const headers = headersIn(textIn(values, 'headers') ?? '');
        const delaySeconds = numberIn(values, 'delaySeconds');
        const groupId = textIn(values, 'groupId');
        const message = {
          body: values.get('body') as string,
          ...(Object.keys(headers).length > 0 && { headers }),
          priority: numberIn(values, 'priority'),
          ...(delaySeconds !== undefined && { delaySeconds }),
          ...(groupId !== undefined && { groupId }),
        };
        const answer = await change<{ messages: { id: string }[] }>(
          'POST',
          `v1/queues/${encodeURIComponent(name)}/messages`,
          { messages: [message] },
          repeat.current.headersFor(message),
        );
        return `Sent ${answer.messages[0]?.id ?? ''}.`;
      }}
    >
      <Area label="Body" name="body" rows={6} required spellcheck={false} />
      <Area
        label="Headers"
        name="headers"
        rows={2}
        help="One a line, such as event: order-created"
        spellcheck={false}
      />
      <div class="row">
        <Field label="Priority, 0 to 9" name="priority" type="number" min={0} max={9} value={4} required />
        <Field label="Delay in seconds" name="delaySeconds" type="number" min={0} placeholder="of the queue" />
        <Field label="Group" name="groupId" autocomplete="off" />
      </div>
    </FormDialog>
  );
}

/** Throws for a line without a colon. */
export function headersIn(text: string): Record<string, string> {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return Object.fromEntries(
    lines.map((line) => {
      const [name = '', value] = line.split(/:(.*)/s);
      if (value === undefined) throw new Error(`The header '${line}' has no colon. Write it as name: value.`);
      return [name.trim(), value.trim()];
    }),
  );
}

const SIDES: readonly (readonly [PauseSide, string])[] = [
  ['consumers', 'Consumers: nothing is handed out'],
  ['producers', 'Producers: enqueues are refused'],
  ['both', 'Both'],
];

function PauseDialog({ queue: { name }, onClose }: DialogProps): JSX.Element {
  return (
    <FormDialog
      title={`Pause ${name}`}
      action="Pause"
      confirmName={name}
      onClose={onClose}
      onSubmit={async (values) => {
        await change('POST', admin(['queues', name, 'pause']), { side: textIn(values, 'side') });
        return `${name} is paused.`;
      }}
    >
      <Choice label="Who pauses" name="side" options={SIDES} />
    </FormDialog>
  );
}

function ResumeDialog({ queue: { name }, onClose }: DialogProps): JSX.Element {
  return (
    <FormDialog
      title={`Resume ${name}`}
      action="Resume"
      confirmName={name}
      onClose={onClose}
      onSubmit={async () => {
        await change('POST', admin(['queues', name, 'resume']), { side: 'both' });
        return `${name} is no longer paused.`;
      }}
    >
      <p>Consumers get messages again, and producers may enqueue.</p>
    </FormDialog>
  );
}

function PurgeDialog({ queue: { name, stats }, onClose }: DialogProps): JSX.Element {
  return (
    <FormDialog
      title={`Purge ${name}`}
      action="Purge"
      isDangerous
      confirmName={name}
      onClose={onClose}
      onSubmit={async () => {
        await change<JobAnswer>('POST', admin(['queues', name, 'purge']));
        go(['queues', name, 'jobs']);
        return 'The purge has begun.';
      }}
    >
      <p>
        Every message that is in the queue now is removed for good, leased ones included:{' '}
        <strong>{plural(stats.ready + stats.leased + stats.delayed + stats.waiting, 'message')}</strong>. Messages that
        come later stay.
      </p>
    </FormDialog>
  );
}

function RedriveDialog({ queue: { name }, onClose }: DialogProps): JSX.Element {
  return (
    <FormDialog
      title={`Redrive ${name}`}
      action="Redrive"
      confirmName={name}
      onClose={onClose}
      onSubmit={async (values) => {
        await change<JobAnswer>('POST', admin(['queues', name, 'redrive']), {
          toQueue: textIn(values, 'toQueue'),
          messagesPerSecond: numberIn(values, 'messagesPerSecond'),
          maxMessages: numberIn(values, 'maxMessages'),
        });
        go(['queues', name, 'jobs']);
        return 'The redrive has begun.';
      }}
    >
      <p>All messages that no consumer holds move. To redrive some of them, use the filter above the messages.</p>
      <RedriveFields />
    </FormDialog>
  );
}

/** The fields that both forms of a redrive have. */
export function RedriveFields(): JSX.Element {
  return (
    <>
      <Field label="To the queue" name="toQueue" placeholder="where each came from" autocomplete="off" />
      <div class="row">
        <Field
          label="Messages a second at most"
          name="messagesPerSecond"
          type="number"
          min={1}
          max={100_000}
          value={1000}
          required
        />
        <Field label="Messages at most" name="maxMessages" type="number" min={1} placeholder="all" />
      </div>
    </>
  );
}

function ReplayDialog({ queue: { name }, onClose }: DialogProps): JSX.Element {
  // A second try of the same replay goes on where the first one failed.
  const progress = useRef({ of: '', replayed: 0, cursor: undefined as string | undefined });
  return (
    <FormDialog
      title={`Replay ${name}`}
      action="Replay"
      confirmName={name}
      onClose={onClose}
      onSubmit={async (values, closed) => {
        const request: ReplayRequest = {
          from: timeIn(values, 'from'),
          to: timeIn(values, 'to'),
          messagesPerSecond: numberIn(values, 'messagesPerSecond') ?? 500,
        };
        const toQueue = textIn(values, 'toQueue');
        if (toQueue !== undefined) request.toQueue = toQueue;
        const of = JSON.stringify(request);
        if (progress.current.of !== of) progress.current = { of, replayed: 0, cursor: undefined };
        const { current: sofar } = progress;
        const replayed = (): string => plural(sofar.replayed, 'message');
        try {
          for (let calls = 0; calls < MOST_REPLAY_CALLS && !closed.aborted; calls += 1) {
            const answer = await change<ReplayAnswer>('POST', admin(['queues', name, 'replay']), {
              ...request,
              ...(sofar.cursor !== undefined && { cursor: sofar.cursor }),
            });
            sofar.replayed += answer.replayed;
            if (answer.complete || answer.cursor === null) return `Replayed ${replayed()}.`;
            sofar.cursor = answer.cursor;
          }
        } catch (error) {
          if (sofar.cursor === undefined) throw error;
          throw new Error(
            `${messageOf(error as Error)} Before that, it replayed ${replayed()}. Replay goes on there.`,
            {
              cause: error,
            },
          );
        }
        if (closed.aborted) return `Stopped the replay after ${replayed()}.`;
        throw new Error(`Replayed ${replayed()}, and more are left. Replay goes on there.`);
      }}
    >
      <p>
        Messages that were acked are stored again as new ones, as long as their partition is kept. Consumers will see
        them a second time.
      </p>
      <div class="row">
        <Field label="Enqueued from" name="from" type="datetime-local" step={1} required />
        <Field label="and before" name="to" type="datetime-local" step={1} required />
      </div>
      <Field label="Into the queue" name="toQueue" placeholder={name} autocomplete="off" />
      <Field
        label="Messages a second at most"
        name="messagesPerSecond"
        type="number"
        min={10}
        max={100_000}
        value={500}
        required
      />
    </FormDialog>
  );
}

/** A time of the reader's zone, as the API takes it. */
export function timeIn(values: FormData, name: string): string {
  return new Date(values.get(name) as string).toISOString();
}

function DeleteDialog({ queue: { name, stats }, onClose }: DialogProps): JSX.Element {
  const depth = stats.ready + stats.leased + stats.delayed + stats.waiting;
  return (
    <FormDialog
      title={`Delete ${name}`}
      action="Delete"
      isDangerous
      confirmName={name}
      onClose={onClose}
      onSubmit={async (values) => {
        const force = values.get('force') === 'on' ? 'true' : undefined;
        await change('DELETE', admin(['queues', name], { force }));
        go(['queues']);
        return `${name} is deleted.`;
      }}
    >
      <p>The queue and its settings go for good, and its subscriptions to topics end.</p>
      {depth > 0 && (
        <p>
          <label>
            <input type="checkbox" name="force" /> Delete its {plural(depth, 'message')}, too
          </label>
        </p>
      )}
    </FormDialog>
  );
}
