import { historyOf } from './history.js';
import type { Message } from './ledger.js';

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
  readonly #title: string;
  readonly #unit: string;
  #checked = 0;
  #broken = 0;
  #unproven = 0;
  readonly #examples: { why: string; history: string[] }[] = [];

  constructor(title: string, unit: string) {
    this.#title = title;
    this.#unit = unit;
  }

  checked(count = 1): void {
    this.#checked += count;
  }

  broken(message: Message, why: string): void {
    this.brokenBy(why, 1, () => historyOf(message));
  }

  /** For what is wrong with something that is not a known message. */
  brokenBy(why: string, count = 1, history: () => string[] = () => []): void {
    this.#broken += count;
    if (this.#examples.length < EXAMPLES_KEPT) this.#examples.push({ why, history: history() });
  }

  unproven(message: Message, why: string): void {
    this.#unproven++;
    if (this.#examples.length < EXAMPLES_KEPT) this.#examples.push({ why, history: historyOf(message) });
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
export function newGuarantees() {
  return {
    kept: new Guarantee('Nothing is lost', 'messages'),
    whole: new Guarantee('A batch is stored whole or not at all', 'batches'),
    unaltered: new Guarantee('Nothing is altered', 'deliveries'),
    genuine: new Guarantee('Nothing is doubled or invented', 'deliveries'),
    notAfterAck: new Guarantee('Nothing is delivered after its ack', 'acks'),
    notAfterExpiry: new Guarantee('Nothing is delivered after its expiry', 'deliveries'),
    exclusive: new Guarantee('A message has one valid lease at a time', 'leases'),
    fenced: new Guarantee('Only the current lease settles or extends', 'answers'),
    explained: new Guarantee('Every redelivery has its reason', 'redeliveries'),
  };
}

export type Guarantees = ReturnType<typeof newGuarantees>;
