import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { BadLine, batchesOf, type LineBatch } from './ndjson.js';

async function read(chunks: readonly Uint8Array[], options: { plain: boolean; fromLine?: number }) {
  const batches: LineBatch[] = [];
  const input = Readable.from(chunks.map((chunk) => Buffer.from(chunk)));
  for await (const batch of batchesOf(input, { fields: {}, fromLine: 1, ...options })) batches.push(batch);
  return batches;
}

const TEXT = Buffer.from('Müller\r\n\na\rb\n{"body":"€"}\nlast');
const MÜLLER = Buffer.from('Müller', 'latin1');

describe('lines of stdin', () => {
  it('are the same wherever the pipe cuts them', async () => {
    const whole = await read([TEXT], { plain: true });
    expect(whole).toEqual([
      {
        messages: [{ body: 'Müller' }, { body: 'a\rb' }, { body: '{"body":"€"}' }, { body: 'last' }],
        lastLine: 5,
        bytes: TEXT.length,
      },
    ]);
    for (let at = 0; at <= TEXT.length; at += 1)
      expect(await read([TEXT.subarray(0, at), TEXT.subarray(at)], { plain: true })).toEqual(whole);
    expect(
      await read(
        [...TEXT].map((byte) => Uint8Array.of(byte)),
        { plain: true },
      ),
    ).toEqual(whole);
  });

  it('that are no text arrive as their bytes', async () => {
    const [batch] = await read([MÜLLER, Buffer.from('\nb\n')], { plain: true });
    expect(batch?.messages).toEqual([{ body: MÜLLER.toString('base64'), bodyEncoding: 'base64' }, { body: 'b' }]);
  });

  it('are refused in NDJSON if they are not UTF-8, unless they come before the first that is meant', async () => {
    const chunks = [Buffer.from('{"body":"'), MÜLLER, Buffer.from('"}\n{"body":"b"}\n')];
    await expect(read(chunks, { plain: false })).rejects.toThrow(new BadLine(1, 'is not UTF-8'));
    expect(await read(chunks, { plain: false, fromLine: 2 })).toMatchObject([{ messages: [{ body: 'b' }] }]);
  });

  it('fill a batch by the size of their bodies in the request', async () => {
    const line = Buffer.alloc(1024 * 1024, 0xff);
    const batches = await read(
      [1, 2, 3].flatMap(() => [line, Buffer.from('\n')]),
      { plain: true },
    );
    expect(batches.map(({ messages }) => messages.length)).toEqual([2, 1]);
  });
});
