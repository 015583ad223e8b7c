import { holdSnapshot } from './clients/postgres.js';
import { installClients, openSession } from './installation.js';
import type { Peer } from './peer.js';
import type { Measured, StretchOptions } from './session.js';

/**
 * Measures a PostgreSQL peer's lifecycles at batch 100 while a snapshot is open on its server, for
 * `npm run bench:snapshot`. `perSecond` of the result shows how the rate changes.
 * @param signal ends it with an error
 */
export async function measureUnderHeldSnapshot(
  peer: Peer,
  options: StretchOptions,
  signal?: AbortSignal,
): Promise<{ version: string; measured: Measured }> {
  installClients();
  const session = await openSession(peer, signal);
  try {
    const release = await holdSnapshot(session.address);
    const measured = await session.stretch('batch', options);
    await release();
    await session.close();
    return { version: session.version, measured };
  } catch (error) {
    await session.abandon();
    throw error;
  }
}
