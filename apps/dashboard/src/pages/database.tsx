import type { JSX } from 'preact';
import type { DatabaseAnswer } from '@rowmq/contract';
import { admin } from '../api.js';
import { bytes, clock, duration, number, short } from '../format.js';
import { useLive } from '../live.js';
import { Loaded } from '../parts/states.js';

const EVERY_MS = 5000;
const HOUR_MS = 3_600_000;

/** The database: its load, its tables, its partitions on a time line, and the brokers on it. */
export function DatabasePage(): JSX.Element {
  const live = useLive<DatabaseAnswer>(admin(['database']), EVERY_MS);
  return (
    <>
      <h1>Database</h1>
      <Loaded live={live}>
        {(database) => (
          <>
            {database.thisBroker.hasSeveralServers && (
              <p class="attention-line bad">Several servers take writes where one primary should be.</p>
            )}
            <Figures database={database} />
            <section aria-labelledby="partitions">
              <h2 id="partitions">Partitions</h2>
              <TimeLine partitions={database.partitions} />
            </section>
            <div class="pair">
              <Tables tables={database.tables} />
              <section aria-labelledby="brokers">
                <h2 id="brokers">Brokers</h2>
                <ul class="plain">
                  {database.brokers.map(({ id, url }) => (
                    <li key={id}>
                      <code>{url}</code>
                    </li>
                  ))}
                </ul>
                <h2>Failed tries of this broker</h2>
                <Failures failures={database.thisBroker.failures} />
              </section>
            </div>
          </>
        )}
      </Loaded>
    </>
  );
}

function Figures({ database }: { database: DatabaseAnswer }): JSX.Element {
  const hidden = 'needs PROCESS';
  const seconds = database.longestTransactionSeconds;
  const figures: [string, string][] = [
    ['Server', database.server],
    ['Up for', duration(database.upSeconds)],
    ['Connections', `${number(database.connections)} of ${number(database.maxConnections)}`],
    ['Row locks waited for', number(database.rowLockWaits)],
    ['History list', database.historyLength === null ? hidden : short(database.historyLength)],
    ['Longest transaction', seconds === null ? hidden : duration(seconds)],
    ['Deadlocks', database.deadlocks === null ? hidden : number(database.deadlocks)],
    ['Disk', bytes(database.tables.reduce((sum, table) => sum + table.bytes, 0))],
  ];
  return (
    <dl class="figures wide">
      {figures.map(([label, value]) => (
        <div key={label}>
          <dt>{label}</dt>
          <dd class={value === hidden ? 'muted' : undefined}>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** Each partition as wide as the time that it covers, and as dark as its rows. */
function TimeLine({ partitions }: { partitions: DatabaseAnswer['partitions'] }): JSX.Element {
  const bounded = partitions.filter(({ until }) => until !== null);
  const catchAll = partitions.find(({ until }) => until === null);
  const now = Date.now();
  const most = Math.max(1, ...bounded.map(({ rows }) => rows));
  const ends = bounded.map(({ until }) => Date.parse(until as string));
  const first = bounded[0]?.from;
  const start = first === null || first === undefined ? Math.min(now, (ends[0] ?? now) - HOUR_MS) : Date.parse(first);
  const end = Math.max(now + HOUR_MS, ends.at(-1) ?? now);
  const x = (at: number): number => (Math.max(0, at - start) / (end - start)) * 1000;
  const ahead = ends.filter((until) => until > now).length;
  return (
    <>
      <p class={ahead < 2 ? 'fault' : 'muted'}>
        {number(bounded.length)} partitions, {number(ahead)} of them end in the future
        {catchAll !== undefined && catchAll.rows > 0 && `; ${number(catchAll.rows)} rows are beyond the last one`}.
        {ahead < 2 && ' The reaper makes them: see on its page whether one runs.'}
      </p>
      <svg
        class="line-of-time"
        viewBox="0 0 1000 46"
        preserveAspectRatio="none"
        role="img"
        aria-label={`${bounded.length} partitions from ${clock(start)} to ${clock(end)}`}
      >
        {bounded.map(({ name, from, until, rows }) => {
          const left = from === null ? 0 : x(Date.parse(from));
          return (
            <rect
              key={name}
              x={left}
              y={6}
              width={Math.max(1, x(Date.parse(until as string)) - left - 1)}
              height={34}
              opacity={rows === 0 ? 0.15 : 0.35 + (rows / most) * 0.65}
            >
              <title>{`${name}: ${number(rows)} rows until ${clock(until as string)}`}</title>
            </rect>
          );
        })}
        <line x1={x(now)} x2={x(now)} y1={0} y2={46} />
      </svg>
      <p class="ends muted">
        <span>{clock(start)}</span>
        <span>{clock(end)}</span>
      </p>
    </>
  );
}

function Tables({ tables }: { tables: DatabaseAnswer['tables'] }): JSX.Element {
  return (
    <section aria-labelledby="tables">
      <h2 id="tables">Tables</h2>
      <div class="scroll" role="region" aria-label="Tables" tabIndex={0}>
        <table>
          <thead>
            <tr>
              <th scope="col">Table</th>
              <th scope="col" class="number">
                Disk
              </th>
              <th scope="col" class="number">
                Rows, about
              </th>
            </tr>
          </thead>
          <tbody>
            {tables.map((table) => (
              <tr key={table.name}>
                <th scope="row">{table.name}</th>
                <td class="number">{bytes(table.bytes)}</td>
                <td class="number">{short(table.rows)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Failures({ failures }: { failures: Record<string, number> }): JSX.Element {
  const all = Object.entries(failures);
  if (all.length === 0) return <p class="muted">None since it started.</p>;
  return (
    <ul class="plain">
      {all.map(([code, count]) => (
        <li key={code}>
          <code>{code}</code> {number(count)}×
        </li>
      ))}
    </ul>
  );
}
