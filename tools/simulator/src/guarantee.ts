import { historyOf } from './history.js';
import type { Ledger } from './ledger.js';

export type Status = 'OK' | 'BROKEN' | 'UNPROVEN';

/** What the run showed about one guarantee. */
export interface GuaranteeResult {
  guarantee: string;
  status: Status;
  /** How many things were looked at, and what they are. */
  checked: number;
  unit: string;
  broken: number;
  /** Where what happened cannot be concluded, because an answer is missing. */
  unproven: number;
  /** The first offenders: what is wrong, then what the ledger knows about the message. */
  examples: { why: string; history: string[] }[];
}

const EXAMPLES_KEPT = 3;

/** Collects what is found about one guarantee. */
export class Guarantee {
  readonly #ledger: Ledger;
  readonly #title: string;
  readonly #unit: string;
  #checked = 0;
  #broken = 0;
  #unproven = 0;
  readonly #examples: { why: string; history: string[] }[] = [];

  constructor(ledger: Ledger, title: string, unit: string) {
    this.#ledger = ledger;
    this.#title = title;
    this.#unit = unit;
  }

  checked(count = 1): void {
    this.#checked += count;
  }

  broken(message: number, why: string): void {
    this.brokenBy(why, 1, () => historyOf(this.#ledger, message));
  }

  /** For what is wrong with something that is not a known message. */
  brokenBy(why: string, count = 1, history: () => string[] = () => []): void {
    this.#broken += count;
    if (this.#examples.length < EXAMPLES_KEPT) this.#examples.push({ why, history: history() });
  }

  unproven(message: number, why: string): void {
    this.#unproven++;
    if (this.#examples.length < EXAMPLES_KEPT) this.#examples.push({ why, history: historyOf(this.#ledger, message) });
  }

  result(): GuaranteeResult {
    const unprovenOrOk = this.#unproven > 0 ? 'UNPROVEN' : 'OK';
    return {
      guarantee: this.#title,
      status: this.#broken > 0 ? 'BROKEN' : unprovenOrOk,
      checked: this.#checked,
      unit: this.#unit,
      broken: this.#broken,
      unproven: this.#unproven,
      examples: this.#examples,
    };
  }
}

/** A collector for each guarantee, in the order in which they are shown. */
export function guaranteesOf(ledger: Ledger) {
  return {
    kept: new Guarantee(ledger, 'Nothing is lost', 'messages'),
    whole: new Guarantee(ledger, 'A batch is stored whole or not at all', 'batches'),
    unaltered: new Guarantee(ledger, 'Nothing is altered', 'deliveries'),
    genuine: new Guarantee(ledger, 'Nothing is doubled or invented', 'deliveries'),
    notAfterAck: new Guarantee(ledger, 'Nothing is delivered after its ack', 'acks'),
    notAfterExpiry: new Guarantee(ledger, 'Nothing is delivered after its expiry', 'deliveries'),
    exclusive: new Guarantee(ledger, 'A message has one valid lease at a time', 'leases'),
    fenced: new Guarantee(ledger, 'Only the current lease settles or extends', 'answers'),
    explained: new Guarantee(ledger, 'Every redelivery has its reason', 'redeliveries'),
  };
}

export type Guarantees = ReturnType<typeof guaranteesOf>;
