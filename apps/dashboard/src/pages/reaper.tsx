import type { JSX } from 'preact';
import type { ReaperAnswer } from '@rowmq/contract';
import { admin } from '../api.js';
import { ago, number } from '../format.js';
import { useLive } from '../live.js';
import { Loaded } from '../parts/states.js';

const EVERY_MS = 5000;

const MEANINGS: Record<string, string> = {
  'create-partitions': 'makes partitions ahead of time',
  'drop-partitions': 'gives the disk space of settled messages back',
  'thin-partitions': 'moves stragglers out of partitions that can go soon',
  'expire-deliveries': 'removes messages whose time to live is over',
  'dead-letter-deliveries': 'moves messages that failed too often',
  'enqueue-ticks': 'sends the messages of schedules',
  'remove-deleted-queues': 'removes what deleted queues left',
  'remove-deduplication': 'forgets deduplication ids',
  'keep-history': 'keeps the last day for charts',
  'prune-runs': 'shortens this list',
  'prune-audit': 'shortens the audit',
  'forget-jobs': 'forgets old jobs',
  'forget-withdrawn': 'forgets how old messages were settled',
};

/** The reaper: which process works, and the last runs of each duty. */
export function ReaperPage(): JSX.Element {
  const live = useLive<ReaperAnswer>(admin(['reaper']), EVERY_MS);
  return (
    <>
      <h1>Reaper</h1>
      <Loaded live={live}>
        {({ leader, duties }) => (
          <>
            {leader === null ? (
              <p class="attention-line bad">
                No reaper runs: schedules do not tick, and disk space does not come back.
              </p>
            ) : (
              <p class="fine">
                <strong>{leader.reaper}</strong> works.
              </p>
            )}
            {duties.length === 0 ? <p class="muted">No duty has run yet.</p> : <Duties duties={duties} />}
          </>
        )}
      </Loaded>
    </>
  );
}

function Duties({ duties }: { duties: ReaperAnswer['duties'] }): JSX.Element {
  return (
    <div class="scroll" role="region" aria-label="Duties" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col">Duty</th>
            <th scope="col">Last run</th>
            <th scope="col" class="number">
              Took
            </th>
            <th scope="col" class="number">
              Handled
            </th>
            <th scope="col">Last five runs</th>
          </tr>
        </thead>
        <tbody>
          {duties.map(({ duty, runs }) => {
            const [last] = runs;
            return (
              <tr key={duty}>
                <th scope="row">
                  {duty}
                  <br />
                  <small class="muted">{MEANINGS[duty]}</small>
                </th>
                <td>{last === undefined ? 'never' : ago(last.startedAt)}</td>
                <td class="number">{last === undefined ? '–' : `${number(last.durationMs)} ms`}</td>
                <td class="number">{last === undefined ? '–' : number(last.count)}</td>
                <td>
                  {runs.map((run) => (
                    <span
                      key={run.startedAt}
                      class={`badge ${run.error === null ? 'good' : 'bad'}`}
                      title={run.error ?? `${run.count} in ${run.durationMs} ms`}
                    >
                      {run.error === null ? number(run.count) : 'failed'}
                    </span>
                  ))}
                  {runs.find(({ error }) => error !== null)?.error !== undefined && (
                    <p class="fault">{runs.find(({ error }) => error !== null)?.error}</p>
                  )}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
