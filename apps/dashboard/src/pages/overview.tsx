import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Attention, OverviewAnswer, OverviewQueue, OverviewSort, PutQueueRequest } from '@rowmq/contract';
import { admin, ApiError, change, may, mayReachAll, session } from '../api.js';
import { duration, number, plural, rate, short } from '../format.js';
import { isRefusal, type Live, useLive } from '../live.js';
import { Field, FormDialog, textIn } from '../parts/dialog.js';
import { Spark } from '../parts/spark.js';
import { Loaded, Pager } from '../parts/states.js';
import { go, place, refine, to } from '../router.js';
import { sentence, severityOf } from '../words.js';

const EVERY_MS = 3000;
const ROWS = 50;
const SEARCH_PAUSE_MS = 200;
const FEW = 6;
/** Older figures are worth a word. */
const OLD_SECONDS = 10;

interface Column {
  readonly sort: OverviewSort;
  readonly label: string;
  readonly cell: (queue: OverviewQueue) => JSX.Element | string;
  readonly isWide?: boolean;
}

const COLUMNS: readonly Column[] = [
  { sort: 'ready', label: 'Ready', cell: ({ stats }) => short(stats.ready) },
  {
    sort: 'oldest',
    label: 'Oldest',
    cell: ({ stats }) => (stats.oldestReadyAgeSeconds === null ? '–' : duration(stats.oldestReadyAgeSeconds)),
  },
  { sort: 'leased', label: 'Leased', cell: ({ stats }) => short(stats.leased) },
  { sort: 'delayed', label: 'Delayed', cell: ({ stats }) => short(stats.delayed), isWide: true },
  { sort: 'in', label: 'In', cell: (queue) => rate(queue.in) },
  { sort: 'out', label: 'Out', cell: (queue) => rate(queue.out) },
  {
    sort: 'failed',
    label: 'Failed/h',
    cell: ({ failedLastHour }) => (failedLastHour === 0 ? '0' : <span class="warn-text">{short(failedLastHour)}</span>),
  },
];

/** All queues, and first of all what needs attention. */
export function OverviewPage(): JSX.Element {
  const { query } = place.value;
  const search = query.get('search') ?? '';
  const sort = (query.get('sort') ?? 'name') as OverviewSort;
  const order = query.get('order') ?? 'asc';
  const offset = Number(query.get('offset') ?? 0);
  const [isCreating, setCreating] = useState(false);
  const live = useLive<OverviewAnswer>(admin(['overview'], { search, sort, order, offset, limit: ROWS }), EVERY_MS);
  const latest = useLatest(live);
  const ageSeconds = useAge(latest?.at);
  return (
    <>
      <div class="title">
        <h1>Queues</h1>
        {may('admin') && (
          <button type="button" class="primary" onClick={() => setCreating(true)}>
            Create a queue
          </button>
        )}
      </div>
      <Loaded live={{ ...live, data: latest }}>
        {(overview) => (
          <>
            <AttentionList
              all={overview.attention}
              total={overview.attentionTotal}
              hasQueues={overview.totals.queues > 0}
            />
            <Totals totals={overview.totals} />
            {ageSeconds > OLD_SECONDS && (
              <p class="muted">
                These figures are {duration(ageSeconds)} old. The broker counts less often while counting takes long.
              </p>
            )}
            {overview.totals.queues === 0 ? (
              <Empty onCreate={() => setCreating(true)} />
            ) : (
              <>
                <Search value={search} matched={overview.matched} />
                <Table queues={overview.queues} sort={sort} order={order} />
                <Pager
                  offset={offset}
                  limit={ROWS}
                  total={overview.matched}
                  onMove={(next) => refine({ offset: next === 0 ? undefined : next })}
                />
              </>
            )}
          </>
        )}
      </Loaded>
      {isCreating && <CreateDialog onClose={() => setCreating(false)} />}
    </>
  );
}

/** The last answer, so that a search or another page does not blank the table. A refusal does. */
function useLatest<T>({ data, error }: Live<T>): T | undefined {
  const [latest, setLatest] = useState(data);
  useEffect(() => {
    if (data !== undefined) setLatest(data);
  }, [data]);
  return data ?? (isRefusal(error) ? undefined : latest);
}

/** For how long the answers have had this time. It compares no clocks of two machines. */
function useAge(at: string | undefined): number {
  const since = useRef({ at, from: performance.now() });
  if (since.current.at !== at) since.current = { at, from: performance.now() };
  return (performance.now() - since.current.from) / 1000;
}

function AttentionList({
  all,
  total,
  hasQueues,
}: {
  all: readonly Attention[];
  total: number;
  hasQueues: boolean;
}): JSX.Element {
  const [isOpen, setOpen] = useState(false);
  const shown = isOpen ? all : all.slice(0, FEW);
  return (
    <section aria-labelledby="attention">
      <h2 id="attention">Needs attention{total > 0 && <span class="count">{number(total)}</span>}</h2>
      {total === 0 ? (
        <p class="fine">{hasQueues ? 'Nothing. All queues are served.' : 'Nothing.'}</p>
      ) : (
        <ul class="attention">
          {shown.map((one) => (
            <li key={`${one.kind} ${one.name ?? ''}`} class={severityOf(one)}>
              {one.name !== null && (
                <a href={one.kind === 'schedule-failed' ? to(['schedules', one.name]) : to(['queues', one.name])}>
                  {one.name}
                </a>
              )}
              {one.name !== null && ': '}
              {sentence(one)}
            </li>
          ))}
        </ul>
      )}
      {all.length > FEW && (
        <button type="button" class="small" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
          {isOpen ? 'Show fewer' : `Show ${all.length - FEW} more`}
        </button>
      )}
    </section>
  );
}

function Totals({ totals }: { totals: OverviewAnswer['totals'] }): JSX.Element {
  const figures: [string, string][] = [
    ['Queues', number(totals.queues)],
    ['Ready', short(totals.ready)],
    ['Leased', short(totals.leased)],
    ['Delayed', short(totals.delayed)],
    ['In', rate(totals.in)],
    ['Out', rate(totals.out)],
    ['Failed/h', short(totals.failedLastHour)],
  ];
  return (
    <dl class="figures">
      {figures.map(([label, value]) => (
        <div key={label}>
          <dt>{label}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function Search({ value, matched }: { value: string; matched: number }): JSX.Element {
  const [text, setText] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => {
      if (text !== value) refine({ search: text, offset: undefined });
    }, SEARCH_PAUSE_MS);
    return () => clearTimeout(timer);
  }, [text, value]);
  return (
    <p class="search">
      <label for="search" class="hidden">
        Search queues by name
      </label>
      <input
        id="search"
        type="search"
        placeholder="Search queues by name"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
      />
      <span class="muted" role="status">
        {plural(matched, 'queue')}
      </span>
    </p>
  );
}

function Table({
  queues,
  sort,
  order,
}: {
  queues: readonly OverviewQueue[];
  sort: string;
  order: string;
}): JSX.Element {
  return (
    <div class="scroll" role="region" aria-label="Queues" tabIndex={0}>
      <table class="queues">
        <thead>
          <tr>
            <Heading sort="name" label="Queue" now={sort} order={order} />
            {COLUMNS.map((column) => (
              <Heading key={column.sort} {...column} now={sort} order={order} isNumber />
            ))}
            <th scope="col">Last hour</th>
          </tr>
        </thead>
        <tbody>
          {queues.map((queue) => (
            <tr key={queue.name}>
              <th scope="row">
                <a href={to(['queues', queue.name])}>{queue.name}</a> <Badges queue={queue} />
              </th>
              {COLUMNS.map(({ sort: name, cell }) => (
                <td key={name} class="number">
                  {cell(queue)}
                </td>
              ))}
              <td>
                <Spark hour={queue.hour} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Badges({
  queue: { paused, producersPaused, deadLettersOf },
}: {
  queue: Pick<OverviewQueue, 'paused' | 'producersPaused' | 'deadLettersOf'>;
}): JSX.Element {
  return (
    <>
      {paused && <span class="badge warn">paused</span>}
      {producersPaused && <span class="badge warn">producers paused</span>}
      {deadLettersOf.length > 0 && (
        <span class="badge" title={`of ${deadLettersOf.join(', ')}`}>
          dead letters
        </span>
      )}
    </>
  );
}

function Heading({
  sort,
  label,
  now,
  order,
  isNumber = false,
}: {
  sort: string;
  label: string;
  now: string;
  order: string;
  isNumber?: boolean;
}): JSX.Element {
  const isSorted = sort === now;
  const next = isSorted ? (order === 'asc' ? 'desc' : 'asc') : isNumber ? 'desc' : 'asc';
  return (
    <th
      scope="col"
      class={isNumber ? 'number' : undefined}
      aria-sort={isSorted ? (order === 'asc' ? 'ascending' : 'descending') : undefined}
    >
      <button type="button" class="sort" onClick={() => refine({ sort, order: next, offset: undefined })}>
        {label}
        <span aria-hidden="true">{isSorted ? (order === 'asc' ? ' ↑' : ' ↓') : ''}</span>
      </button>
    </th>
  );
}

function Empty({ onCreate }: { onCreate: () => void }): JSX.Element {
  if (!mayReachAll())
    return (
      <section class="card empty">
        <h2>This key reaches no queue</h2>
        <p>There may be others. An administrator can give you a key whose patterns match their names.</p>
      </section>
    );
  const key = session.value?.needsKey === true ? ` -H "authorization: Bearer $ROWMQ_KEY"` : '';
  const url = new URL('v1/admin/queues/orders', location.href).href;
  return (
    <section class="card empty">
      <h2>No queues yet</h2>
      <p>A queue holds messages until a consumer has acked them. Create the first one here, or with the API:</p>
      <pre>{`curl -X PUT ${url}${key} -H 'content-type: application/json' -d '{}'`}</pre>
      {may('admin') && (
        <button type="button" class="primary" onClick={onCreate}>
          Create a queue
        </button>
      )}
    </section>
  );
}

function CreateDialog({ onClose }: { onClose: () => void }): JSX.Element {
  return (
    <FormDialog
      title="Create a queue"
      action="Create"
      onClose={onClose}
      onSubmit={async (values) => {
        const name = textIn(values, 'name') ?? '';
        const deadLetterQueue = textIn(values, 'deadLetterQueue');
        const settings =
          deadLetterQueue === undefined ? {} : { deadLetterQueue, maxReceives: Number(textIn(values, 'maxReceives')) };
        if (deadLetterQueue !== undefined && deadLetterQueue !== name) await createUnlessThere(deadLetterQueue);
        await createQueue(name, settings);
        go(['queues', name]);
        return `Queue ${name} exists.`;
      }}
    >
      <Field label="Name" name="name" required maxLength={80} autocomplete="off" spellcheck={false} />
      <Field
        label="Dead-letter queue"
        name="deadLetterQueue"
        help="A queue for messages that fail too often, which is made unless it exists. None when empty."
        autocomplete="off"
        spellcheck={false}
      />
      <Field label="Hand-outs before that" name="maxReceives" type="number" min={1} max={1000} value={5} />
    </FormDialog>
  );
}

/** Makes a queue, and changes none that exists. */
async function createQueue(name: string, settings: PutQueueRequest): Promise<void> {
  await change('PUT', admin(['queues', name]), settings, { 'if-none-match': '*' });
}

async function createUnlessThere(name: string): Promise<void> {
  await createQueue(name, {}).catch((error: unknown) => {
    if (!(error instanceof ApiError) || error.problem?.code !== 'queue-exists') throw error;
  });
}
