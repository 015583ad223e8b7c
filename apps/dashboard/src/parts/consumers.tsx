import type { JSX } from 'preact';
import type { ConsumersAnswer } from '@rowmq/contract';
import { admin } from '../api.js';
import { ago, number, plural } from '../format.js';
import { useLive } from '../live.js';
import { Loaded } from './states.js';

const EVERY_MS = 4000;

/** The consumers of a queue, through whatever broker, and what each one holds. */
export function Consumers({ queue }: { queue: string }): JSX.Element {
  const live = useLive<ConsumersAnswer>(admin(['queues', queue, 'consumers']), EVERY_MS);
  return (
    <Loaded live={live}>
      {({ consumers, otherLeases, complete }) => (
        <>
          {consumers.length === 0 ? (
            <p class="muted">Nobody has asked this queue for messages in the last ten minutes.</p>
          ) : (
            <div class="scroll" role="region" aria-label="Consumers" tabIndex={0}>
              <table>
                <thead>
                  <tr>
                    <th scope="col">Consumer</th>
                    <th scope="col">Address</th>
                    <th scope="col" class="number">
                      Holds
                    </th>
                    <th scope="col" class="number">
                      Waits
                    </th>
                    <th scope="col">Last seen</th>
                  </tr>
                </thead>
                <tbody>
                  {consumers.map(({ name, address, waiting, leases, lastSeenAt }) => (
                    <tr key={`${name ?? ''} ${address}`}>
                      <th scope="row">{name ?? 'without a name'}</th>
                      <td>{address}</td>
                      <td class="number">{number(leases)}</td>
                      <td class="number">{number(waiting)}</td>
                      <td>{ago(lastSeenAt)}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )}
          {otherLeases > 0 && (
            <p class="muted">{plural(otherLeases, 'message')} more: leased by consumers that no broker remembers.</p>
          )}
          {!complete && <p class="muted">The list may lack consumers, because not every broker answered.</p>}
        </>
      )}
    </Loaded>
  );
}
