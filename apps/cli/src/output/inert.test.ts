import { expect, test } from 'vitest';
import { inert, inertJson, inertLine } from './inert.js';

// A colour, in seven and in eight bits; the title; a change of direction; a byte order mark.
const HOSTILE = '\u001b[31m \u009b31m \u009d0;title\u0007 \u202edrow \ufeff';

test('text shows control characters, and keeps line ends and tabs', () => {
  expect(inert(`a\n\tb ${HOSTILE}`)).toBe('a\n\tb \\x1b[31m \\x9b31m \\x9d0;title\\x07 \\u202edrow \\ufeff');
  expect(inertLine('a\n\tb')).toBe('a\\n\\tb');
});

test.each([undefined, 2])('JSON shows them as escapes, and has the same value: indented by %s', (indent) => {
  const value = { body: HOSTILE, list: [1, 'ä\n'] };
  const text = inertJson(value, indent);
  expect(JSON.parse(text)).toEqual(value);
  // oxlint-disable-next-line no-control-regex -- these are what it looks for
  expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufeff]/);
  expect(text).toContain('ä');
});
