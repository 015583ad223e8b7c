import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { AuditAnswer, AuditEntry } from '@rowmq/contract';
import { admin } from '../api.js';
import { visible } from '../body.js';
import { instant } from '../format.js';
import { useLive } from '../live.js';
import { Choice, Field, textIn } from '../parts/dialog.js';
import { CursorPager, Loaded } from '../parts/states.js';
import { place, refine } from '../router.js';

const EVERY_MS = 5000;
const FILTERS = ['key', 'action', 'path', 'refused'] as const;

/** The actions of administrators, done and refused. */
export function AuditPage(): JSX.Element {
  const { query } = place.value;
  const filter = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? undefined]));
  const [pages, setPages] = useState<readonly string[]>([]);
  const live = useLive<AuditAnswer>(admin(['audit'], { ...filter, after: pages.at(-1), limit: 50 }), EVERY_MS);
  return (
    <>
      <h1>Audit</h1>
      <form
        class="row filters"
        onSubmit={(event) => {
          event.preventDefault();
          const values = new FormData(event.currentTarget);
          setPages([]);
          refine(Object.fromEntries(FILTERS.map((name) => [name, textIn(values, name)])));
        }}
      >
        <Field label="Key" name="key" value={filter['key'] ?? ''} autocomplete="off" />
        <Field label="Action" name="action" value={filter['action'] ?? ''} placeholder="putQueue" autocomplete="off" />
        <Field
          label="Path begins with"
          name="path"
          value={filter['path'] ?? ''}
          placeholder="/v1/admin/queues/orders"
          autocomplete="off"
        />
        <Choice
          label="Outcome"
          name="refused"
          value={filter['refused'] ?? ''}
          options={[
            ['', 'all'],
            ['false', 'done'],
            ['true', 'refused'],
          ]}
        />
        <button type="submit">Apply</button>
      </form>
      <Loaded live={live}>
        {({ entries, nextAfter }) => (
          <>
            {entries.length === 0 ? <p class="muted">No action.</p> : <Table entries={entries} />}
            <CursorPager
              of="the audit"
              cursors={pages}
              nextAfter={nextAfter}
              words={['Newer', 'Older']}
              onMove={setPages}
            />
          </>
        )}
      </Loaded>
    </>
  );
}

function Table({ entries }: { entries: readonly AuditEntry[] }): JSX.Element {
  return (
    <div class="scroll" role="region" aria-label="Actions" tabIndex={0}>
      <table class="audit">
        <thead>
          <tr>
            <th scope="col">When</th>
            <th scope="col">Key</th>
            <th scope="col">Action</th>
            <th scope="col">Changes</th>
            <th scope="col">From</th>
          </tr>
        </thead>
        <tbody>
          {entries.map((entry) => (
            <tr key={entry.requestId + entry.at}>
              <td>{instant(entry.at)}</td>
              <td>{entry.key ?? '–'}</td>
              <td>
                <strong>{entry.action}</strong>{' '}
                {entry.problem === null ? '' : <span class="badge bad">refused: {entry.problem}</span>}
                <br />
                <code>{visible(entry.path)}</code>
              </td>
              <td>
                <Changes changes={entry.changes} />
              </td>
              <td>{entry.address}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Changes({ changes }: { changes: AuditEntry['changes'] }): JSX.Element | null {
  if (changes === null) return null;
  return (
    <ul class="plain">
      {Object.entries(changes).map(([name, { from, to }]) => (
        <li key={name}>
          {name}: {from !== undefined && <del>{visible(JSON.stringify(from))}</del>}{' '}
          {to !== undefined && <ins>{visible(JSON.stringify(to))}</ins>}
        </li>
      ))}
    </ul>
  );
}
