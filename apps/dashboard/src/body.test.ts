import { describe, expect, test } from 'vitest';
import { hexDump, indent, showBody, visible } from './body.js';

describe('a body of a message', () => {
  test('is indented if it is JSON, and keeps numbers that JavaScript cannot hold', () => {
    const json = '{"id":12345678901234567890,"at":1.10,"list":[],"of":{"a":[1,2]}}';
    const { kind, text } = showBody(json, 'utf8');
    expect(kind).toBe('JSON');
    expect(text).toBe(
      '{\n  "id": 12345678901234567890,\n  "at": 1.10,\n  "list": [],\n  "of": {\n    "a": [\n      1,\n      2\n    ]\n  }\n}',
    );
  });

  test('keeps the text of strings when it is indented, whatever is in them', () => {
    const value = { 'a,b': 'x: {y} [z], "q" \\ \n', '': null, nested: [{ deep: ['{', '}'] }] };
    expect(JSON.parse(indent(JSON.stringify(value)))).toEqual(value);
  });

  test('is shown as it is if it only looks like JSON', () => {
    expect(showBody('{broken', 'utf8')).toEqual({ kind: 'text', text: '{broken', bytes: 7 });
    expect(showBody('', 'utf8').kind).toBe('empty');
    expect(showBody('ä', 'utf8').bytes).toBe(2);
  });

  test('is dumped in hexadecimal digits if it is binary', () => {
    const bytes = Uint8Array.from([0, 65, 66, 255, ...Array.from({ length: 13 }, () => 0x2e)]);
    expect(hexDump(bytes).split('\n')).toEqual([
      '000000  00 41 42 ff 2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 2e  .AB.............',
      '000010  2e                                               .',
    ]);
    expect(showBody('AEFC/w==', 'base64')).toMatchObject({ kind: 'binary', bytes: 4 });
    expect(hexDump(new Uint8Array(20_000))).toMatch(/… and 3616 bytes more$/);
  });
});

test('characters that hide or reorder text are made visible', () => {
  expect(visible('a\u202Egpj.exe\u0000')).toBe('a⟨U+202E⟩gpj.exe⟨U+0000⟩');
  expect(visible('a\tb\r\nc ä 😀')).toBe('a\tb\r\nc ä 😀');
});
