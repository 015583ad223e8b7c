import type { JSX } from 'preact';
import type { QueueAnswer } from '@rowmq/contract';
import { admin } from '../api.js';
import { duration, number, rate } from '../format.js';
import { useLive } from '../live.js';
import { Charts } from '../parts/charts.js';
import { Consumers } from '../parts/consumers.js';
import { JobList } from '../parts/jobs.js';
import { Messages } from '../parts/messages.js';
import { QueueActions } from '../parts/queue-actions.js';
import { Settings } from '../parts/settings.js';
import { Loaded } from '../parts/states.js';
import { place, to } from '../router.js';

const EVERY_MS = 2000;

const VIEWS = {
  messages: 'Messages',
  consumers: 'Consumers',
  jobs: 'Jobs',
  settings: 'Settings',
} as const;
type View = keyof typeof VIEWS;

/** One queue: how it is, what is in it, who takes from it, and what one can do. */
export function QueuePage({ name }: { name: string }): JSX.Element {
  const live = useLive<QueueAnswer>(admin(['queues', name]), EVERY_MS);
  const wanted = place.value.path[2] ?? 'messages';
  const view: View = Object.hasOwn(VIEWS, wanted) ? (wanted as View) : 'messages';
  return (
    <>
      <p class="crumbs">
        <a href={to(['queues'])}>Queues</a>
        {typeof live.data?.deadLetterQueue === 'string' && (
          <>
            {' '}
            · its dead letters are in{' '}
            <a href={to(['queues', live.data.deadLetterQueue])}>{live.data.deadLetterQueue}</a>
          </>
        )}
      </p>
      <div class="title">
        <h1>
          {name} {live.data?.paused === true && <span class="badge warn">paused</span>}
          {live.data?.producersPaused === true && <span class="badge warn">producers paused</span>}
        </h1>
        {live.data !== undefined && <QueueActions queue={live.data} />}
      </div>
      <Loaded live={live}>
        {(queue) => (
          <>
            <Figures queue={queue} />
            <Charts queue={name} />
            <nav class="tabs" aria-label={`Parts of ${name}`}>
              {Object.entries(VIEWS).map(([key, label]) => (
                <a key={key} href={to(['queues', name, key])} aria-current={key === view ? 'page' : undefined}>
                  {label}
                </a>
              ))}
            </nav>
            {view === 'messages' && <Messages queue={queue} />}
            {view === 'consumers' && <Consumers queue={name} />}
            {view === 'jobs' && <JobList queue={name} />}
            {view === 'settings' && <Settings queue={queue} />}
          </>
        )}
      </Loaded>
    </>
  );
}

function Figures({ queue: { stats, rates } }: { queue: QueueAnswer }): JSX.Element {
  const [minute] = rates;
  const figures: [string, string][] = [
    ['Ready', number(stats.ready)],
    ['Leased', number(stats.leased)],
    ['Delayed', number(stats.delayed)],
    ...(stats.waiting > 0 ? [['Waiting in groups', number(stats.waiting)] as [string, string]] : []),
    ['Oldest ready', stats.oldestReadyAgeSeconds === null ? '–' : duration(stats.oldestReadyAgeSeconds)],
    ['In', rate(minute?.in ?? 0)],
    ['Out', rate(minute?.out ?? 0)],
    ['Failed', rate(minute?.failed ?? 0)],
  ];
  return (
    <>
      <dl class="figures">
        {figures.map(([label, value]) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {/* Always a line, so that nothing below it moves when a queue turns out to be deep. */}
      <p class="muted">
        {stats.errorBound > 0
          ? `The queue is deep: the counts are ${duration(stats.ageSeconds)} old, and each may be wrong by ${number(stats.errorBound)}.`
          : 'The counts are of this moment.'}
      </p>
    </>
  );
}
