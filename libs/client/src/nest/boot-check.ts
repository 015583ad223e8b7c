import type { Logger } from '@nestjs/common';
import type { CallOptions } from '../broker-client.js';
import { mayPass } from '../http/broker-unreachable.error.js';
import { idle, jittered } from '../timers.js';
import type { RowmqConfigurationError } from './rowmq-configuration.error.js';

/** The time for all steps at boot together. */
const CHECK_MS = 10_000;
/** The time to repeat one call at boot. Another broker may answer it. */
const REPEAT_SECONDS = 2;
const CHECK_AGAIN_MS = 2000;

/** Something that a broker has to have before an application works. */
export interface BootStep {
  /** The log's line if no broker answers, such as `Queue 'orders' could not be checked yet`. */
  notYet: string;
  run(options: CallOptions): Promise<void>;
  /** The error for a refusal. */
  asFault(error: unknown): RowmqConfigurationError;
}

/** Runs the steps of an application's start. */
export class BootCheck {
  readonly #logger: Pick<Logger, 'warn' | 'error'>;
  readonly #closing: AbortSignal;

  /** @param closing ends the steps that are left */
  constructor(logger: Pick<Logger, 'warn' | 'error'>, closing: AbortSignal) {
    this.#logger = logger;
    this.#closing = closing;
  }

  /**
   * Runs the steps in order. If the broker is unreachable, the rest is done later and does not
   * delay the start.
   * @throws RowmqConfigurationError for a step that the broker refuses
   */
  async runAll(steps: readonly BootStep[]): Promise<void> {
    const deadline = AbortSignal.timeout(CHECK_MS);
    for (const [index, step] of steps.entries()) {
      try {
        await step.run({ signal: deadline, retrySeconds: REPEAT_SECONDS });
      } catch (error) {
        if (!mayPass(error) && !deadline.aborted) throw step.asFault(error);
        this.#logger.warn(`${step.notYet}: ${String(error)}`);
        void this.#runLater(steps.slice(index));
        return;
      }
    }
  }

  /**
   * Repeats the steps until the broker answers each. It is too late to end the start, so a fault is
   * logged. Between the tries, the process may end: its start may have failed elsewhere. Never
   * rejects.
   */
  async #runLater(steps: readonly BootStep[]): Promise<void> {
    for (const step of steps) {
      while (!this.#closing.aborted) {
        try {
          await step.run({ signal: this.#closing, retrySeconds: 0 });
          break;
        } catch (error) {
          if (!mayPass(error)) {
            if (!this.#closing.aborted) this.#logger.error(step.asFault(error).message);
            break;
          }
          await idle(jittered(CHECK_AGAIN_MS), this.#closing);
        }
      }
    }
  }
}
