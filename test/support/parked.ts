import type { LeasedMessage, Reserve } from '@rowmq/store';

/** Consumers who wait at the broker for so many messages each. */
export class Parked {
  readonly handedOff: LeasedMessage[] = [];
  /** The number of answers that each has had. */
  readonly answers: number[];

  constructor(private readonly wanted: readonly number[]) {
    this.answers = wanted.map(() => 0);
  }

  readonly reserve: Reserve = () =>
    this.wanted.map((maxMessages, index) => {
      const answer = (): void => {
        this.answers[index] = (this.answers[index] ?? 0) + 1;
      };
      return {
        maxMessages,
        leaseSeconds: 600,
        cancel: answer,
        handOff: (leased) => {
          answer();
          this.handedOff.push(...leased);
        },
      };
    });
}
