import type { ErrorCode } from '@rowmq/contract';
import type { Counted } from '../../../tools/simulator/src/meter.js';
import type { SimulatorSettings } from '../../../tools/simulator/src/simulator.config.js';
import type { Prober } from '../../support/prober.js';
import type { FaultRig } from './rig.js';

/** The ways in which a call of the load may fail: a refusal of the broker, or no answer. */
export type Trouble = ErrorCode | 'unreachable' | 'no-answer';

/** Something that goes wrong for as long as the load runs. */
export interface Prepared {
  /** When the load is over: throws if it did not go wrong all the time. */
  check?(): Promise<void>;
  undo(): Promise<void>;
}

/** Something that goes wrong, and what RowMQ promises about it. */
export interface Fault {
  name: string;
  /** The effect that users see, and the reason why nothing is lost. */
  expected: string;
  /** The failures that calls may meet meanwhile. Any other failure is a fault of RowMQ. */
  mayEndIn: readonly Trouble[];
  /** Before the load begins. Throws if it did not take effect. */
  prepare?(rig: FaultRig): Promise<Prepared>;
  /**
   * Goes wrong once, under load, and is over. Returns since when RowMQ has had all that it needs
   * (`performance.now()`), and throws if nothing went wrong.
   */
  strike?(rig: FaultRig, prober: Prober): Promise<number>;
  /**
   * For a fault that the load itself makes: true once the load's counts show it. The load goes on
   * until then.
   */
  hasStruck?(counts: Record<Counted, number>): boolean;
  /** How the load differs from the usual one. */
  load?: Partial<SimulatorSettings>;
  /** Within which service must be back after a strike. Default 30 s. */
  recoveryMs?: number;
}

/** Everything here has a deadline that a busy machine does not reach. */
export const DEADLINE_MS = 60_000;

export const now = (): number => performance.now();

export const oneOf = <T>(choices: readonly T[]): T => choices[Math.floor(Math.random() * choices.length)] as T;

/** Does something while a connection beside the network holds what these statements have taken. */
export async function holding<T>(rig: FaultRig, statements: readonly string[], work: () => Promise<T>): Promise<T> {
  const connection = await rig.connect();
  try {
    for (const sql of statements) await connection.query(sql);
    return await work();
  } finally {
    connection.destroy();
  }
}
