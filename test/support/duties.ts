import { vi } from 'vitest';
import type { Duty } from '../../apps/reaper/src/duties/duty.js';

/**
 * Runs a duty of the reaper to its end. A run stops after five seconds, which a busy machine may
 * exceed. The clock of this process therefore stands still meanwhile.
 */
export async function runWhole(duty: Duty, signal = new AbortController().signal): Promise<number> {
  const clock = vi.spyOn(performance, 'now').mockReturnValue(performance.now());
  try {
    return await duty.run({ signal });
  } finally {
    clock.mockRestore();
  }
}
