import { messageIdIn, newPackId } from '@rowmq/contract';
import { expect, it } from 'vitest';
import { decodeAnswer, encodeAnswer, type RecordedMessage } from './recorded-answer.js';

const pack = newPackId();
const other = newPackId();
const stored = (id: Buffer, subscriptions = 1): RecordedMessage => ({ id, duplicate: false, subscriptions });
const repeated = (id: Buffer): RecordedMessage => ({ id, duplicate: true, subscriptions: 1 });
const whole = (id: Buffer) => Array.from({ length: 32 }, (_, index) => stored(messageIdIn(id, index)));

it.each<[string, RecordedMessage[], number]>([
  ['no message', [], 0],
  ['one message', [stored(messageIdIn(pack, 31))], 1],
  ['two whole packs', [...whole(pack), ...whole(other)], 2],
  ['messages of two packs in turn', [pack, other, pack].map((id, at) => stored(messageIdIn(id, at))), 3],
  ['a message and its duplicate', [stored(pack), repeated(pack), repeated(messageIdIn(pack, 1))], 2],
  [
    'messages that went to different numbers of queues',
    [200, 0, 0].map((count, at) => stored(messageIdIn(pack, at), count)),
    2,
  ],
  ['messages in descending order', [stored(messageIdIn(pack, 1)), stored(pack)], 2],
])('an answer with %s is recorded in runs and read back', (_, messages, runs) => {
  const answer = encodeAnswer(messages);
  expect(answer).toHaveLength(runs * 18);
  expect(decodeAnswer(answer)).toEqual(messages);
});
