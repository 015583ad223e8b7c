import { historyOf } from './history.js';
import type { Message } from './ledger.js';

export type Status = 'OK' | 'BROKEN' | 'UNPROVEN';

/** The evidence about one guarantee. */
export interface GuaranteeResult {
  guarantee: string;
  status: Status;
  /** Number of things that were checked, and their unit. */
  checked: number;
  unit: string;
  broken: number;
  /** Cases without a verdict, because an answer is missing. */
  unproven: number;
  /** The first offenders: the fault, then the history of the message. */
  examples: { why: string; history: string[] }[];
}

const EXAMPLES_KEPT = 3;

/** Collects the evidence about one guarantee. */
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

  /** Reports a fault of something that is not a known message. */
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
    ordered: new Guarantee('Messages of a group come in order', 'deliveries'),
    explained: new Guarantee('Every redelivery has its reason', 'redeliveries'),
  };
}

export type Guarantees = ReturnType<typeof newGuarantees>;
