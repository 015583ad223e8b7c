import {
  CONNECTIONS_EXHAUSTED,
  CONNECTIONS_KILLED,
  DATABASE_KILLED,
  METADATA_LOCK,
  POOL_EXHAUSTED,
  READ_ONLY,
} from './database-faults.js';
import { type Fault, now, oneOf, type Trouble } from './fault.js';
import { CLOCKS_OFF, CONSUMERS_DIE, PURGE_STALLED, Snapshot } from './lasting-faults.js';
import { ANSWERS_LOST, NETWORK_CUT, NETWORK_SLOW } from './network-faults.js';
import { BROKER_KILLED, REAPER_KILLED_IN_DDL, REAPERS_KILLED } from './process-faults.js';

const SIMPLE: readonly Fault[] = [
  BROKER_KILLED,
  REAPERS_KILLED,
  DATABASE_KILLED,
  CONNECTIONS_KILLED,
  CONNECTIONS_EXHAUSTED,
  READ_ONLY,
  ANSWERS_LOST,
  NETWORK_SLOW,
  POOL_EXHAUSTED,
];

/** Strikes with any two of these, one after the other. */
function mixed(faults: readonly Fault[]): Fault {
  let snapshot: Snapshot | undefined;
  return {
    name: 'all of these mixed, in any order, while purge is stalled and consumers die',
    expected: 'What each of them promises.',
    mayEndIn: [...new Set(faults.flatMap(({ mayEndIn }): readonly Trouble[] => mayEndIn))],
    load: { crashRate: 0.1, slowRate: 0.1 },
    recoveryMs: 45_000,
    prepare: async (rig) => {
      const taken = await Snapshot.take(rig);
      snapshot = taken;
      return { undo: async () => taken.letGo() };
    },
    strike: async (rig, prober) => {
      let since = now();
      for (const fault of [oneOf(faults), oneOf(faults)]) {
        console.log(`strikes: ${fault.name}`);
        since = (await fault.strike?.(rig, prober)) ?? since;
        await snapshot?.keep();
      }
      return since;
    },
  };
}

/** Faults that need no more than a rig. */
export const FAULTS: readonly Fault[] = [
  ...SIMPLE,
  NETWORK_CUT,
  REAPER_KILLED_IN_DDL,
  METADATA_LOCK,
  CONSUMERS_DIE,
  CLOCKS_OFF,
  PURGE_STALLED,
  mixed(SIMPLE),
];

/**
 * Faults of processes, clocks and networks. To the database each is a client that says nothing, or
 * a connection that breaks. Other tests do that to every kind of server: CONNECTIONS_KILLED here,
 * and beside the campaign reaper-killed, lost-answers and silent-session.
 */
export const OUTSIDE_DATABASE: readonly Fault[] = [
  BROKER_KILLED,
  REAPERS_KILLED,
  CLOCKS_OFF,
  NETWORK_CUT,
  CONSUMERS_DIE,
  NETWORK_SLOW,
  ANSWERS_LOST,
];
