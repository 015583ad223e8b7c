import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import { expect, test } from 'vitest';
import { UnreadAnswers } from './unread-answers.js';

const MIB = 1024 * 1024;
const newResponse = (): ServerResponse => Object.assign(new EventEmitter(), { destroyed: false }) as ServerResponse;

test('consumers are refused while 128 MiB of answers are unread, and no longer', () => {
  const unread = new UnreadAnswers();
  const [slow, quick] = [newResponse(), newResponse()];
  unread.add(100 * MIB, slow);
  unread.refuseIfFull();
  unread.add(28 * MIB, quick);
  expect(() => unread.refuseIfFull()).toThrow(
    expect.objectContaining({ code: 'overloaded', message: expect.stringContaining('134217728 bytes') }),
  );
  quick.emit('close');
  unread.refuseIfFull();
});

test('short answers, and those to clients that are gone, do not count', () => {
  const unread = new UnreadAnswers();
  for (let answer = 0; answer < 3000; answer += 1) unread.add(65_535, newResponse());
  unread.add(200 * MIB, Object.assign(newResponse(), { destroyed: true }));
  expect(() => unread.refuseIfFull()).not.toThrow();
});
