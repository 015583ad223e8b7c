import { readFileSync } from 'node:fs';
import { defineConfig } from 'vite';

const { dependencies } = JSON.parse(readFileSync('package.json', 'utf8')) as { dependencies: Record<string, string> };
/** Nest is named by code that the commands do not use, and that the bundle leaves out. */
const outside = [...Object.keys(dependencies), '@nestjs/common'];

/*
 * The published package carries inside what the commands need of private packages: the store's
 * checks of a database for `doctor`, and the load generator for `bench`. npm installs the rest.
 */
export default defineConfig({
  build: {
    outDir: 'bundle',
    target: 'node20',
    minify: false,
    lib: { entry: { main: 'src/main.ts' }, formats: ['es'] },
    rolldownOptions: {
      external: (id) => id.startsWith('node:') || outside.some((name) => id === name || id.startsWith(`${name}/`)),
      output: { chunkFileNames: '[name].js' },
    },
  },
  resolve: { conditions: ['rowmq-source'] },
});
