import type { JSX } from 'preact';
import { useEffect } from 'preact/hooks';
import { changes, logOut, may, mayReachAll, readSession, session, trouble } from './api.js';
import { KeysPage } from './pages/keys.js';
import { LoginPage } from './pages/login.js';
import { AuditPage } from './pages/audit.js';
import { DatabasePage } from './pages/database.js';
import { JobsPage } from './pages/jobs.js';
import { FindMessagePage, MessagePage } from './pages/message.js';
import { OverviewPage } from './pages/overview.js';
import { QueuePage } from './pages/queue.js';
import { ReaperPage } from './pages/reaper.js';
import { SchedulesPage } from './pages/schedules.js';
import { TopicsPage } from './pages/topics.js';
import { Toasts } from './parts/toasts.js';
import { place, to } from './router.js';

/** A first try that failed is repeated after this time. */
const AGAIN_MS = 2000;

/** Some calls concern every queue, and need a key without patterns. */
function maySeeAll(): boolean {
  return may('read') && mayReachAll();
}

interface Section {
  readonly name: string;
  readonly label: string;
  readonly page: (path: readonly string[]) => JSX.Element;
  readonly isAllowed?: () => boolean;
}

const SECTIONS: readonly Section[] = [
  {
    name: 'queues',
    label: 'Queues',
    page: ([name]) => (name === undefined ? <OverviewPage /> : <QueuePage name={name} />),
  },
  {
    name: 'messages',
    label: 'Message',
    page: ([id]) => (id === undefined ? <FindMessagePage /> : <MessagePage id={id} />),
  },
  { name: 'topics', label: 'Topics', page: ([name]) => <TopicsPage name={name} /> },
  { name: 'schedules', label: 'Schedules', page: () => <SchedulesPage /> },
  { name: 'jobs', label: 'Jobs', page: () => <JobsPage /> },
  { name: 'reaper', label: 'Reaper', page: () => <ReaperPage />, isAllowed: maySeeAll },
  { name: 'database', label: 'Database', page: () => <DatabasePage />, isAllowed: maySeeAll },
  { name: 'audit', label: 'Audit', page: () => <AuditPage />, isAllowed: maySeeAll },
  { name: 'keys', label: 'Keys', page: () => <KeysPage />, isAllowed: maySeeAll },
];

/** The whole dashboard: a login, or a page below the navigation. */
export function App(): JSX.Element {
  const known = session.value;
  useEffect(() => {
    if (known !== undefined) return undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const read = (): void => {
      readSession().catch(() => {
        timer = setTimeout(read, AGAIN_MS);
      });
    };
    read();
    return () => clearTimeout(timer);
  }, [known === undefined]);
  if (known === undefined) return <Waiting />;
  if (known.rights === null) return <LoginPage />;
  return <Shell />;
}

function Waiting(): JSX.Element {
  return (
    <main class="alone">
      <h1>RowMQ</h1>
      <p role="status">
        {trouble.value === undefined ? (
          'Loading …'
        ) : (
          <>
            <strong>{trouble.value.text}</strong> {trouble.value.advice} The page tries again by itself.
          </>
        )}
      </p>
    </main>
  );
}

function Shell(): JSX.Element {
  const [first = 'queues', ...path] = place.value.path;
  const sections = SECTIONS.filter(({ isAllowed = () => may('read') }) => isAllowed());
  const section = sections.find(({ name }) => name === first);
  const label = section?.label ?? 'Not found';
  const subject = path[0];
  useEffect(() => {
    document.title = `${subject === undefined ? label : `${subject} · ${label}`} · RowMQ`;
  }, [label, subject]);
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <header class="top">
        <a class="brand" href={to(['queues'])}>
          <img src="dashboard/icon.svg" alt="" width="24" height="24" /> RowMQ
        </a>
        <nav aria-label="Pages">
          <ul>
            {sections.map(({ name, label: text }) => (
              <li key={name}>
                <a href={to([name])} aria-current={name === first ? 'page' : undefined}>
                  {text}
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <User />
      </header>
      <Away />
      <main id="main" tabIndex={-1}>
        {section === undefined ? <Nothing hasRights={sections.length > 0} /> : section.page(path)}
      </main>
      <footer>
        RowMQ {session.value?.version} · <a href="docs">API</a> · <a href="openapi.json">OpenAPI</a> ·{' '}
        <a href="metrics">Metrics</a>
      </footer>
      <Toasts />
    </>
  );
}

function skip(event: Event): void {
  event.preventDefault();
  document.querySelector<HTMLElement>('#main')?.focus();
}

/** Says that nothing comes any more. The figures below it stay as they were. */
function Away(): JSX.Element {
  return (
    <div role="alert">
      {trouble.value !== undefined && (
        <p class="away">
          <strong>{trouble.value.text}</strong> {trouble.value.advice} This page tries again by itself, and its figures
          are the last that came.{' '}
          <button type="button" class="small" onClick={() => void (changes.value += 1)}>
            Try now
          </button>
        </p>
      )}
    </div>
  );
}

function User(): JSX.Element | null {
  const { rights, needsKey } = session.value ?? {};
  if (needsKey !== true)
    return (
      <p class="user muted">
        <span>this machine only, no key</span>
      </p>
    );
  return (
    <p class="user">
      <span class="muted" title={mayReachAll() ? 'reaches every queue' : `reaches ${rights?.patterns.join(', ')}`}>
        {rights?.key} ({may('admin') ? 'administrator' : may('read') ? 'read only' : rights?.scopes.join(', ')})
      </span>{' '}
      <button type="button" class="small" onClick={() => void logOut().catch(() => undefined)}>
        Log out
      </button>
    </p>
  );
}

function Nothing({ hasRights }: { hasRights: boolean }): JSX.Element {
  return hasRights ? (
    <>
      <h1>There is no such page</h1>
      <p>
        Go to <a href={to(['queues'])}>the queues</a>.
      </p>
    </>
  ) : (
    <>
      <h1>This key sees no queues</h1>
      <p>
        The dashboard needs a key with the scope <code>read</code> or <code>admin</code>. Log out, and log in with such
        a key.
      </p>
    </>
  );
}
