import { defineConfig } from 'vite';

/*
 * The published package carries the store's enqueue inside. Its users need nothing else of the
 * store.
 */
export default defineConfig({
  build: {
    outDir: 'dist',
    emptyOutDir: false,
    target: 'node20',
    minify: false,
    lib: { entry: { index: 'src/index.ts', adapter: 'src/adapter.ts' }, formats: ['es'] },
    rolldownOptions: {
      external: [/^node:/, /^@rowmq\/contract(\/|$)/, 'typeorm'],
      output: { chunkFileNames: 'enqueue.js' },
    },
  },
  resolve: { conditions: ['rowmq-source'] },
});
