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
    lib: { entry: 'src/index.ts', formats: ['es'], fileName: 'index' },
    rolldownOptions: { external: [/^node:/, /^@rowmq\/contract$/, 'typeorm'] },
  },
  resolve: { conditions: ['rowmq-source'] },
});
