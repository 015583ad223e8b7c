import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { expect, test, vi } from 'vitest';
import { traceCalls } from './trace-calls.js';

const SOURCES = fileURLToPath(new URL('..', import.meta.url));

test('without a collector, no hook is added', async () => {
  const adapter = new FastifyAdapter();
  const addHook = vi.spyOn(adapter.getInstance(), 'addHook');
  await traceCalls(adapter, { tracesUrl: undefined, tracesPercent: 100 });
  expect(addHook).not.toHaveBeenCalled();
  await traceCalls(adapter, { tracesUrl: 'http://127.0.0.1:9/v1/traces', tracesPercent: 100 });
  expect(addHook).toHaveBeenCalled();
  await adapter.close();
});

test('only what is loaded for a collector imports OpenTelemetry', async () => {
  const files = (await readdir(SOURCES, { recursive: true })).filter((file) => file.endsWith('.ts'));
  const importing: string[] = [];
  for (const file of files) {
    const text = await readFile(join(SOURCES, file), 'utf8');
    if (/from '@opentelemetry\//.test(text)) importing.push(file);
    if (file !== 'tracing/trace-calls.ts') expect(text, file).not.toMatch(/from '\..*\/(?:call-spans|export)\.js'/);
  }
  expect(importing.toSorted()).toEqual(['tracing/call-spans.ts', 'tracing/export.ts']);
  expect(await readFile(join(SOURCES, 'tracing/trace-calls.ts'), 'utf8')).not.toMatch(
    /^import .*call-spans|^import .*export\.js/m,
  );
});
