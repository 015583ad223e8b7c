import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../../support/wait.js';
import { DEADLINE_MS, type Fault, now, oneOf } from './fault.js';

export const NETWORK_SLOW: Fault = {
  name: 'network to the database slow (50 ms each way)',
  expected: 'Everything is slower; nothing fails.',
  mayEndIn: [],
  strike: async (rig) => {
    rig.network.delayMs = 50;
    await sleep(2000);
    rig.network.heal();
    return now();
  },
};

export const ANSWERS_LOST: Fault = {
  name: 'one in five answers to a COMMIT lost',
  expected:
    'The broker repeats the transaction with the same ids and tokens, and reads what the first try did. Each message is stored once, leased once and settled once.',
  // It takes six lost answers in a row.
  mayEndIn: ['database-unavailable'],
  strike: async (rig) => {
    const before = rig.network.lost;
    rig.network.lostAnswers = 0.2;
    await eventually('lost answers', () => rig.network.lost > before + 3, DEADLINE_MS);
    await sleep(1000);
    rig.network.heal();
    return now();
  },
};

export const NETWORK_CUT: Fault = {
  name: 'network to the database cut, and mended',
  expected:
    'Statements hang until their deadline of 10 s, and the brokers close their connections. Delayed COMMITs arrive late and are carried out. Their repetition changes nothing.',
  mayEndIn: ['database-unavailable', 'overloaded', 'no-answer'],
  recoveryMs: 45_000,
  strike: async (rig) => {
    rig.network.cut();
    // Shorter and longer than a statement's deadline.
    await sleep(oneOf([3000, 12_000]));
    rig.network.heal();
    return now();
  },
};
