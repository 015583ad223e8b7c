import type { LeasedMessage, Queue, Reservation } from '@rowmq/store';
import { beforeEach, describe, expect, test } from 'vitest';
import { type Consumer, QueueConsumers, type QueueConsumersHost, type State } from './queue-consumers.js';

const QUEUE = { id: 1, name: 'q', leaseSeconds: 30 } as Queue;
const LIMITS = { consumers: 100, messages: 1000 };

const leased = (...bodies: string[]): LeasedMessage[] =>
  bodies.map((body) => ({
    messageId: Buffer.alloc(16),
    leaseToken: Buffer.alloc(8),
    body: Buffer.from(body),
    headers: null,
    priority: 4,
    receiveCount: 1,
    firstReceivedAt: 0,
    moves: null,
    expiresAt: 0,
    leaseExpiresAt: 0,
    part: 0,
    members: 1,
  }));

/** The consumers of one queue, with a record of all that they ask of the broker. */
class Scene implements QueueConsumersHost {
  readonly list = new QueueConsumers('q', this);
  /** Claims that were requested and have not begun. */
  claims = 0;
  isForgotten = false;
  announced = 0;
  /** The number of messages in each announcement. */
  readonly announcements: number[] = [];
  /** The number of reports that consumers are parked. */
  parkings = 0;
  handedOffMessages = 0;
  /** Each consumer's answers, by its name. A second answer would show. */
  readonly answers: string[] = [];
  private arrivals = 0;
  private readonly consumers = new Map<string, Consumer>();

  requestClaim(): void {
    this.claims += 1;
  }

  forget(): void {
    this.isForgotten = true;
  }

  announce(_queueName: string, messages: number): void {
    this.announced += 1;
    this.announcements.push(messages);
  }

  parked(): void {
    this.parkings += 1;
  }

  handedOff(_queueName: string, messages: number): void {
    this.handedOffMessages += messages;
  }

  come(name: string, { maxMessages = 1, leaseSeconds, mayWait = true }: Partial<Consumer> = {}): void {
    const consumer: Consumer = {
      maxMessages,
      leaseSeconds,
      mayWait,
      arrival: (this.arrivals += 1),
      isOver: false,
      settle: (outcome) => {
        const text = outcome instanceof Error ? outcome.message : outcome.map(({ body }) => body.toString()).join('+');
        this.answers.push(`${name}: ${text}`);
      },
    };
    this.consumers.set(name, consumer);
    this.list.add(consumer);
  }

  leave(name: string): void {
    this.list.giveUp(this.consumers.get(name) as Consumer);
  }

  /** Begins the requested claim. Returns how many messages each of its consumers wants. */
  begin(limits = LIMITS): number[] {
    expect(this.claims).toBe(1);
    this.claims = 0;
    return this.list.beginClaim(QUEUE, limits).map(({ maxMessages }) => maxMessages);
  }

  /** Carries out the requested claim. */
  claim(...shares: string[][]): void {
    const demands = this.begin();
    this.list.endClaim(
      demands.map((_, index) => leased(...(shares[index] ?? []))),
      false,
    );
  }

  /** Carries out claims that lease nothing although more may be ready, until the list gives up. */
  giveUpClaiming(duringTheLast: () => void = () => undefined): void {
    for (let repeat = 1; repeat <= 5; repeat += 1) {
      const demands = this.begin();
      if (repeat === 5) duringTheLast();
      this.list.endClaim(
        demands.map(() => []),
        true,
      );
    }
  }

  reserve(messages: number): Reservation[] {
    return this.list.reserve(QUEUE, messages);
  }

  /** Takes all messages there are: from now on the queue is known to be empty. */
  park(...names: string[]): void {
    for (const name of names) this.come(name);
    this.claim();
    expect(this.list.state).toBe('parked');
  }
}

let scene: Scene;
beforeEach(() => {
  scene = new Scene();
});

describe('the state', () => {
  /** Leads a scene into a state. The consumer `c` waits, except in `idle`. */
  const enter: Record<State, () => void> = {
    idle: () => undefined,
    claiming: () => scene.come('c'),
    parked: () => scene.park('c'),
  };
  /** The same, but no consumer waits any more. */
  const desert: Record<State, () => void> = {
    idle: () => undefined,
    claiming: () => {
      scene.come('c');
      scene.leave('c');
    },
    parked: () => {
      scene.park('c');
      scene.leave('c');
    },
  };
  const states: State[] = ['idle', 'claiming', 'parked'];
  const arrives = (): void => scene.come('new');
  const asks = (): void => scene.come('new', { mayWait: false });
  const ready = (): void => scene.list.becameReady(1, true);
  const pollIsDue = (): void => void scene.list.pollIsDue();
  const isGone = (): void => scene.list.dismiss(new Error('gone'));

  test.each<[string, () => void, Record<State, () => void>, Record<State, State>]>([
    ['a consumer that may wait comes', arrives, enter, { idle: 'claiming', claiming: 'claiming', parked: 'parked' }],
    [
      'a consumer that does not wait comes',
      asks,
      enter,
      { idle: 'claiming', claiming: 'claiming', parked: 'claiming' },
    ],
    ['messages become ready', ready, enter, { idle: 'idle', claiming: 'claiming', parked: 'claiming' }],
    ['messages become ready for nobody', ready, desert, { idle: 'idle', claiming: 'claiming', parked: 'idle' }],
    ['the poll is due', pollIsDue, enter, { idle: 'idle', claiming: 'claiming', parked: 'parked' }],
    ['the poll is due for nobody', pollIsDue, desert, { idle: 'idle', claiming: 'claiming', parked: 'idle' }],
    ['the queue is gone', isGone, enter, { idle: 'idle', claiming: 'claiming', parked: 'idle' }],
  ])('after the event "%s" is the one in the table, whatever it was', (_, event, prepare, after) => {
    for (const state of states) {
      scene = new Scene();
      prepare[state]();
      expect(scene.list.state).toBe(state);
      const claims = scene.claims;
      event();
      expect(scene.list.state, `from ${state}`).toBe(after[state]);
      expect(scene.claims, `claims requested from ${state}`).toBe(
        claims + (after[state] === 'claiming' && state !== 'claiming' ? 1 : 0),
      );
    }
  });

  test('after a claim is parked if the broker knows of no ready message', () => {
    scene.come('a');
    scene.claim();
    expect(scene.list.state).toBe('parked');
  });

  test('after a claim that left messages is claiming while consumers wait, and idle otherwise', () => {
    scene.come('a');
    scene.begin();
    scene.come('b');
    scene.list.endClaim([leased('1')], false);
    expect([scene.list.state, scene.claims]).toEqual(['claiming', 1]);
    scene.claim(['2']);
    expect([scene.list.state, scene.claims]).toEqual(['idle', 0]);
    expect(scene.answers).toEqual(['a: 1', 'b: 2']);
  });

  test('after a failed claim is claiming while other consumers wait, and idle otherwise', () => {
    scene.come('a');
    scene.begin();
    scene.come('b');
    scene.list.failClaim(new Error('lost'));
    expect([scene.list.state, scene.claims]).toEqual(['claiming', 1]);
    scene.begin();
    scene.list.failClaim(new Error('lost'));
    expect(scene.list.state).toBe('idle');
    expect(scene.answers).toEqual(['a: lost', 'b: lost']);
  });

  test('after a claim that met a paused queue is parked, and only consumers that do not wait are answered', () => {
    scene.come('a');
    scene.come('now', { mayWait: false });
    scene.claims = 0;
    scene.list.pauseClaim();
    expect(scene.list.state).toBe('parked');
    expect(scene.answers).toEqual(['now: ']);
  });

  test('after a claim that met a paused queue is claiming when a consumer comes: the pause may be over', () => {
    scene.come('a');
    scene.claims = 0;
    scene.list.pauseClaim();
    scene.come('b');
    scene.claim(['1'], ['2']);
    expect(scene.answers).toEqual(['a: 1', 'b: 2']);
    expect(scene.list.state).toBe('idle');
  });

  test('after a cancelled reservation is claiming if it was idle, and unchanged otherwise', () => {
    scene.park('a');
    const [first] = scene.reserve(1);
    first?.cancel();
    expect([scene.list.state, scene.claims]).toEqual(['parked', 0]);

    const [second] = scene.reserve(1);
    scene.come('now', { mayWait: false });
    second?.cancel();
    expect([scene.list.state, scene.claims]).toEqual(['claiming', 1]);
    scene.claim();

    const [third] = scene.reserve(1);
    scene.list.becameReady(1, true);
    expect(scene.list.state).toBe('idle');
    third?.cancel();
    expect([scene.list.state, scene.claims]).toEqual(['claiming', 1]);
    scene.claim(['late']);
    expect(scene.answers).toEqual(['now: ', 'a: late']);
  });

  test('is idle and forgotten when the poll is due and nobody waits, but not while a consumer is reserved', () => {
    scene.park('a');
    const [reservation] = scene.reserve(1);
    expect(scene.list.pollIsDue()).toBe(false);
    expect([scene.list.state, scene.isForgotten]).toEqual(['idle', false]);
    reservation?.handOff(leased('1'));
    expect(scene.list.pollIsDue()).toBe(false);
    expect(scene.isForgotten).toBe(true);
  });

  test.each<[string, () => void]>([
    ['the poll is due', () => void scene.list.pollIsDue()],
    ['the queue is gone', () => scene.list.dismiss(new Error('gone'))],
  ])('is forgotten when %s, also if messages were known to be ready', (_, event) => {
    scene.park('a');
    scene.reserve(1)[0]?.handOff(leased('1'));
    scene.list.becameReady(1, true);
    expect([scene.list.state, scene.isForgotten]).toEqual(['idle', false]);
    event();
    expect([scene.list.state, scene.isForgotten]).toEqual(['idle', true]);
  });

  test('is forgotten when the queue of parked consumers is gone', () => {
    scene.park('a');
    scene.list.dismiss(new Error('gone'));
    expect([scene.list.state, scene.isForgotten]).toEqual(['idle', true]);
    expect(scene.answers).toEqual(['a: gone']);
  });

  test('asks for a poll only while it is parked with a consumer', () => {
    expect(scene.list.pollIsDue()).toBe(false);
    scene.come('a');
    expect(scene.list.pollIsDue()).toBe(false);
    scene.claim();
    expect(scene.list.pollIsDue()).toBe(true);
  });
});

describe('a hand-off', () => {
  test('goes to parked consumers in their order, and the others stay parked', () => {
    scene.park('a', 'b', 'c');
    const reservations = scene.reserve(2);
    expect(reservations).toHaveLength(2);
    reservations[0]?.handOff(leased('1'));
    reservations[1]?.handOff(leased('2'));
    expect(scene.answers).toEqual(['a: 1', 'b: 2']);
    expect(scene.handedOffMessages).toBe(2);
    expect([scene.list.state, scene.claims]).toEqual(['parked', 0]);
    scene.reserve(1)[0]?.handOff(leased('3'));
    expect(scene.answers).toEqual(['a: 1', 'b: 2', 'c: 3']);
  });

  test('reserves just as many consumers as want the messages, and the last may want more', () => {
    for (const [name, maxMessages] of [
      ['a', 2],
      ['b', 10],
      ['c', 1],
    ] as const)
      scene.come(name, { maxMessages });
    scene.claim();
    const reservations = scene.reserve(5);
    expect(reservations.map(({ maxMessages }) => maxMessages)).toEqual([2, 10]);
    reservations[0]?.handOff(leased('1', '2'));
    reservations[1]?.handOff(leased('3', '4', '5'));
    expect(scene.answers).toEqual(['a: 1+2', 'b: 3+4+5']);
  });

  test('leases for as long as each consumer asked, by default as the queue says', () => {
    scene.come('a');
    scene.come('b', { leaseSeconds: 5 });
    scene.come('c', { leaseSeconds: 300 });
    scene.claim();
    expect(scene.reserve(3).map(({ leaseSeconds }) => leaseSeconds)).toEqual([30, 5, 300]);
  });

  test('never reserves a consumer twice', () => {
    scene.park('a', 'b');
    expect(scene.reserve(1)).toHaveLength(1);
    expect(scene.reserve(5)).toHaveLength(1);
    expect(scene.reserve(5)).toHaveLength(0);
  });

  test('answers a consumer once, whatever else happens to it', () => {
    scene.park('a', 'b');
    const [first, second] = scene.reserve(2);
    first?.handOff(leased('1'));
    first?.handOff(leased('again'));
    first?.cancel();
    scene.leave('a');
    second?.cancel();
    second?.handOff(leased('after cancel'));
    scene.leave('b');
    expect(scene.answers).toEqual(['a: 1', 'b: ']);
    expect(scene.handedOffMessages).toBe(1);
  });

  test('that is cancelled parks its consumers at the front, in their old order', () => {
    scene.park('a', 'b', 'c');
    const [first, second] = scene.reserve(2);
    scene.come('d');
    second?.cancel();
    first?.cancel();
    for (const reservation of scene.reserve(4)) reservation.handOff(leased('x'));
    expect(scene.answers).toEqual(['a: x', 'b: x', 'c: x', 'd: x']);
  });

  test('that is cancelled during a claim parks its consumer before those whom the claim brought nothing', () => {
    scene.park('a', 'b', 'c');
    const [first] = scene.reserve(1);
    scene.list.becameReady(2, true);
    expect(scene.begin()).toEqual([1, 1]);
    first?.cancel();
    scene.list.endClaim([[], []], false);
    for (const reservation of scene.reserve(3)) reservation.handOff(leased('x'));
    expect(scene.answers).toEqual(['a: x', 'b: x', 'c: x']);
  });

  test('that is cancelled during a claim needs no other claim', () => {
    scene.park('a', 'b');
    const [first] = scene.reserve(1);
    scene.list.becameReady(1, true);
    scene.begin();
    first?.cancel();
    scene.list.endClaim([leased('1')], false);
    expect([scene.list.state, scene.claims]).toEqual(['parked', 0]);
    expect(scene.answers).toEqual(['b: 1']);
  });

  test('to a consumer that has gone waits for the outcome, and gives it the messages for a release', () => {
    scene.park('a', 'b');
    const [first, second] = scene.reserve(2);
    scene.leave('a');
    scene.leave('b');
    expect(scene.answers).toEqual([]);
    first?.handOff(leased('1'));
    second?.cancel();
    expect(scene.answers).toEqual(['a: 1', 'b: ']);
    expect(scene.reserve(1)).toEqual([]);
  });

  test('during a stop is waited for, and a cancelled one ends the wait', () => {
    scene.park('a', 'b', 'c');
    const [first, second] = scene.reserve(2);
    scene.list.close();
    expect(scene.answers).toEqual(['c: ']);
    first?.handOff(leased('1'));
    second?.cancel();
    expect(scene.answers).toEqual(['c: ', 'a: 1', 'b: ']);
    expect([scene.reserve(1), scene.claims]).toEqual([[], 0]);
  });

  test('is not for the poll, a claim or a failure of the queue', () => {
    scene.park('a', 'b');
    const [reservation] = scene.reserve(1);
    scene.leave('b');
    expect(scene.list.pollIsDue()).toBe(false);
    scene.come('now', { mayWait: false });
    expect(scene.begin()).toEqual([1]);
    scene.list.failClaim(new Error('lost'));
    scene.list.dismiss(new Error('gone'));
    expect(scene.answers).toEqual(['b: ', 'now: lost']);
    reservation?.handOff(leased('1'));
    expect(scene.answers).toEqual(['b: ', 'now: lost', 'a: 1']);
  });
});

describe('a hand-off never passes over messages that the broker knows to be ready: it reserves nobody', () => {
  test('before a claim has found the queue empty', () => {
    scene.come('a');
    expect(scene.reserve(1)).toEqual([]);
    scene.begin();
    scene.come('b');
    expect(scene.reserve(1)).toEqual([]);
  });

  test('after a claim that got all it wanted of an unknown number', () => {
    scene.come('a');
    scene.begin();
    scene.come('b');
    scene.list.endClaim([leased('1')], false);
    expect(scene.reserve(1)).toEqual([]);
  });

  test('while messages are left that no claim in flight is for', () => {
    scene.park('a', 'b', 'c');
    scene.list.becameReady(2, true);
    expect(scene.reserve(1)).toEqual([]);
    expect(scene.begin({ ...LIMITS, consumers: 1 })).toEqual([1]);
    expect(scene.reserve(1)).toEqual([]);
    scene.list.endClaim([leased('1')], false);
    expect(scene.begin()).toEqual([1]);
    expect(scene.reserve(1)).toHaveLength(1);
  });

  test('after messages became ready during a claim that may not have seen them', () => {
    scene.park('a', 'b');
    scene.list.becameReady(1, true);
    scene.begin();
    scene.list.becameReady(1, true);
    expect(scene.reserve(1)).toEqual([]);
    scene.list.endClaim([[]], false);
    expect(scene.reserve(1)).toEqual([]);
    expect(scene.claims).toBe(1);
  });

  test('after a failed claim, a claim that must be repeated, a hint, or a claim that met a pause', () => {
    scene.park('a', 'b');
    scene.list.becameReady(1, true);
    scene.begin();
    scene.list.failClaim(new Error('lost'));
    expect(scene.reserve(1)).toEqual([]);
    scene.begin();
    scene.list.endClaim([[]], true);
    expect(scene.reserve(1)).toEqual([]);
    scene.claim();
    expect(scene.reserve(0)).toHaveLength(1);
    scene.come('c');
    scene.list.becameReady(Infinity, false);
    expect(scene.reserve(1)).toEqual([]);
    scene.claims = 0;
    scene.list.pauseClaim();
    expect([scene.list.state, scene.reserve(1)]).toEqual(['parked', []]);
  });

  test('after the poll was due while nobody waited', () => {
    scene.park('a');
    const [reservation] = scene.reserve(1);
    scene.list.pollIsDue();
    reservation?.handOff(leased('1'));
    scene.come('b');
    expect([scene.list.state, scene.reserve(1)]).toEqual(['claiming', []]);
  });

  test('after the poll was due during a claim, which then is repeated for all consumers', () => {
    scene.park('a', 'b', 'c');
    scene.list.becameReady(1, true);
    expect(scene.begin()).toEqual([1]);
    scene.list.pollIsDue();
    expect(scene.reserve(1)).toEqual([]);
    scene.list.endClaim([leased('1')], false);
    expect(scene.begin()).toEqual([1, 1]);
  });
});

describe('a claim', () => {
  test('is for just enough consumers to take the known messages; the others can be reserved meanwhile', () => {
    scene.park('a', 'b', 'c', 'd');
    scene.list.becameReady(2, true);
    expect(scene.begin()).toEqual([1, 1]);
    const reservations = scene.reserve(5);
    expect(reservations).toHaveLength(2);
    scene.list.endClaim([leased('1'), leased('2')], false);
    expect([scene.list.state, scene.claims]).toEqual(['parked', 0]);
    for (const reservation of reservations) reservation.handOff(leased('x'));
    expect(scene.answers).toEqual(['a: 1', 'b: 2', 'c: x', 'd: x']);
  });

  test('is for the messages that became ready while nobody waited, and for no more consumers', () => {
    scene.park('a');
    scene.reserve(1)[0]?.handOff(leased('1'));
    scene.list.becameReady(1, true);
    scene.list.becameReady(1, true);
    expect(scene.list.state).toBe('idle');
    for (const name of ['b', 'c', 'd']) scene.come(name);
    expect(scene.begin()).toEqual([1, 1]);
  });

  test('is followed by one for the messages that became ready meanwhile, and for no more consumers', () => {
    scene.park('a', 'b', 'c');
    scene.list.becameReady(1, true);
    scene.begin();
    scene.list.becameReady(1, true);
    scene.list.endClaim([leased('1')], false);
    expect(scene.begin()).toEqual([1]);
  });

  test('is for all consumers if the number of ready messages is unknown', () => {
    scene.park('a', 'b', 'c');
    scene.list.becameReady(Infinity, false);
    expect(scene.begin()).toEqual([1, 1, 1]);
  });

  test('is for no more consumers or messages than its limits, but at least for one', () => {
    for (const name of ['a', 'b', 'c']) scene.come(name, { maxMessages: 10 });
    expect(scene.begin({ consumers: 2, messages: 100 })).toEqual([10, 10]);
    scene.list.endClaim([leased('1'), leased('2')], true);
    expect(scene.begin({ consumers: 2, messages: 5 })).toEqual([10]);
  });

  test('that got too little took all there was, also if more was expected', () => {
    scene.park('a', 'b', 'c');
    scene.list.becameReady(50, true);
    scene.claim(['1'], [], []);
    expect([scene.list.state, scene.claims]).toEqual(['parked', 0]);
    expect(scene.reserve(2)).toHaveLength(2);
  });

  test('is not needed for a consumer that comes while the queue is known to be empty, nobody else waiting', () => {
    scene.park('a');
    scene.reserve(1)[0]?.handOff(leased('1'));
    scene.come('a again');
    expect([scene.list.state, scene.claims]).toEqual(['parked', 0]);
    scene.reserve(1)[0]?.handOff(leased('2'));
    expect(scene.answers).toEqual(['a: 1', 'a again: 2']);
  });

  test('is not needed for consumers that came during one that found the queue empty', () => {
    scene.come('a');
    scene.begin();
    scene.come('b');
    scene.list.endClaim([[]], false);
    expect([scene.list.state, scene.claims]).toEqual(['parked', 0]);
  });

  test('follows for a consumer that does not wait and came during one', () => {
    scene.come('a');
    scene.begin();
    scene.come('now', { mayWait: false });
    scene.list.endClaim([[]], false);
    expect(scene.begin()).toEqual([1, 1]);
    scene.list.endClaim([[], []], false);
    expect(scene.answers).toEqual(['now: ']);
    expect(scene.list.state).toBe('parked');
  });

  test('that must be repeated is repeated at most five times in a row', () => {
    scene.come('now', { mayWait: false });
    scene.come('a');
    scene.giveUpClaiming();
    expect(scene.answers).toEqual(['now: ']);
    expect([scene.list.state, scene.claims]).toEqual(['parked', 0]);
  });

  test('that must be repeated but leased something is never in vain', () => {
    for (let consumer = 0; consumer < 8; consumer += 1) scene.come(`a${consumer}`);
    for (let claim = 0; claim < 7; claim += 1) {
      const wanted = scene.begin();
      scene.list.endClaim([leased(String(claim)), ...wanted.slice(1).map(() => [])], true);
      expect(scene.list.state).toBe('claiming');
    }
    expect(scene.answers).toHaveLength(7);
  });

  test('that was repeated in vain leaves nobody to a hand-off: messages may be ready', () => {
    scene.come('a');
    scene.giveUpClaiming();
    expect(scene.reserve(1)).toEqual([]);
    expect(scene.list.isParked).toBe(true);
  });

  test.each<[string, () => void]>([
    ['a poll that finds a message', () => scene.list.becameReady(Infinity, false)],
    ['a hint', () => scene.list.wasHinted(1)],
    ['a consumer that may wait', () => scene.come('b')],
    ['a consumer that does not wait', () => scene.come('b', { mayWait: false })],
  ])('that was repeated in vain is followed by five more after %s', (_, event) => {
    scene.come('a');
    scene.giveUpClaiming();
    event();
    scene.giveUpClaiming();
    expect([scene.list.state, scene.claims]).toEqual(['parked', 0]);
  });

  test('that was repeated in vain is followed by another for a consumer that came during the last', () => {
    scene.come('a');
    scene.giveUpClaiming(() => scene.come('now', { mayWait: false }));
    scene.claim([], ['1']);
    expect(scene.answers).toEqual(['now: 1']);
  });

  test('that was repeated in vain is followed by another for messages that became ready during the last', () => {
    scene.come('a');
    scene.giveUpClaiming(() => scene.list.becameReady(1, true));
    scene.claim(['1']);
    expect(scene.answers).toEqual(['a: 1']);
  });

  test('that could not begin fails all consumers', () => {
    scene.come('a');
    scene.come('b');
    scene.claims = 0;
    scene.list.failClaim(new Error('no such queue'));
    expect(scene.answers).toEqual(['a: no such queue', 'b: no such queue']);
    expect(scene.isForgotten).toBe(true);
  });

  test('whose consumers have all gone before it began ends without a demand', () => {
    scene.come('a');
    scene.leave('a');
    expect(scene.begin()).toEqual([]);
    scene.list.endClaim([], false);
    expect([scene.list.state, scene.isForgotten]).toEqual(['idle', true]);
  });
});

describe('peers', () => {
  test('hear of messages that became ready here if no consumer waits', () => {
    scene.park('a');
    scene.reserve(1)[0]?.handOff(leased('1'));
    scene.list.becameReady(1, true);
    expect(scene.announced).toBe(1);
    scene.list.becameReady(1, true);
    expect(scene.announced).toBe(2);
  });

  test('hear of messages that the consumers here left', () => {
    scene.park('a');
    scene.list.becameReady(2, true);
    expect(scene.announced).toBe(0);
    scene.claim(['1']);
    expect([scene.list.state, scene.announcements]).toEqual(['idle', [1]]);
  });

  test('hear of the messages of another peer’s hint that the consumers here left, and of no others', () => {
    scene.park('a');
    scene.list.wasHinted(3);
    expect(scene.list.takeHint()).toBe(true);
    expect(scene.list.takeHint()).toBe(false);
    scene.claim(['1']);
    expect([scene.list.state, scene.announcements]).toEqual(['idle', [2]]);
  });

  test('hear nothing of a hint if the consumers here took its messages', () => {
    scene.park('a', 'b');
    scene.list.wasHinted(1);
    scene.claim(['1']);
    expect([scene.list.state, scene.announced]).toEqual(['parked', 0]);
  });

  test('hear nothing of messages that the consumers here took, although the poll was due meanwhile', () => {
    scene.park('a');
    scene.list.wasHinted(1);
    scene.begin();
    scene.list.pollIsDue();
    scene.list.endClaim([leased('1')], false);
    expect([scene.list.state, scene.announcements]).toEqual(['idle', []]);
  });

  test('hear of parked consumers, also of those that come without a claim', () => {
    scene.park('a');
    expect(scene.parkings).toBe(1);
    scene.come('b');
    expect([scene.claims, scene.parkings]).toEqual([0, 2]);
    scene.leave('a');
    scene.leave('b');
    expect(scene.list.isParked).toBe(false);
  });

  test('hear nothing of messages that the consumers here took, or that a peer announced', () => {
    scene.park('a', 'b', 'c');
    scene.list.becameReady(2, true);
    scene.claim(['1'], ['2']);
    scene.list.becameReady(Infinity, false);
    scene.claim(['3']);
    expect([scene.list.state, scene.announced]).toEqual(['idle', 0]);
  });
});

/** A queue whose messages are counted, so that a scene can run for as long as a test wants. */
class BusyQueue {
  stored = 0;
  claims = 0;
  handOffs = 0;
  /** A claim in flight, and its demands. */
  private claiming: number[] | undefined;
  private name = 0;

  enqueue(messages: number): void {
    const reservations = scene.reserve(messages);
    let left = messages;
    for (const reservation of reservations) {
      const got = Math.min(left, reservation.maxMessages);
      reservation.handOff(leased(...Array.from({ length: got }, () => 'x')));
      left -= got;
      this.handOffs += got;
    }
    this.stored += left;
    if (left > 0) scene.list.becameReady(left, true);
  }

  come(consumers: number): void {
    for (let count = 0; count < consumers; count += 1) scene.come(String((this.name += 1)));
  }

  /** A claim takes its messages when it ends, so that enqueues can come between. */
  step(): void {
    if (this.claiming !== undefined) {
      const shares = this.claiming.map((wanted) => {
        const got = Math.min(wanted, this.stored);
        this.stored -= got;
        return leased(...Array.from({ length: got }, () => 'x'));
      });
      this.claiming = undefined;
      scene.list.endClaim(shares, false);
    }
    if (scene.claims > 0) {
      this.claims += 1;
      this.claiming = scene.begin();
    }
  }
}

describe('a busy queue', () => {
  test('whose consumers keep up is served by hand-offs only, once its backlog is gone', () => {
    const queue = new BusyQueue();
    queue.enqueue(200);
    queue.come(50);
    for (let round = 0; round < 20; round += 1) {
      queue.enqueue(5);
      queue.step();
      queue.come(20);
    }
    expect(queue.stored).toBe(0);
    const before = queue.claims;
    for (let round = 0; round < 100; round += 1) {
      queue.enqueue(18);
      queue.step();
      queue.come(18);
    }
    expect(queue.claims - before).toBeLessThanOrEqual(1);
  });

  test('whose enqueues bring more than the parked consumers want leaves them to a claim, and hands off the next', () => {
    const queue = new BusyQueue();
    queue.come(20);
    queue.step();
    queue.step();
    for (let round = 0; round < 100; round += 1) {
      queue.enqueue(round % 2 === 0 ? 25 : 10);
      queue.come(18);
      queue.step();
    }
    expect(queue.stored).toBeLessThanOrEqual(25);
    expect(queue.handOffs).toBeGreaterThan(1000);
  });

  test('whose producers are faster hands off nothing while it has a backlog', () => {
    const queue = new BusyQueue();
    queue.enqueue(1000);
    for (let round = 0; round < 20; round += 1) {
      queue.come(10);
      queue.enqueue(20);
      queue.step();
    }
    expect(queue.handOffs).toBe(0);
    expect(queue.stored).toBe(1000 + 20 * 20 - 190);
  });
});
