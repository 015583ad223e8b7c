import { defineConfig } from 'vite';

/*
 * The names of the files are the same in every version, and the broker sends them with an ETag. So
 * a page from one broker finds its script on another one, also during an upgrade.
 */
export default defineConfig({
  // The page is at `dashboard`, without a slash, and its files are at `dashboard/…`.
  experimental: { renderBuiltUrl: (name) => `dashboard/${name}` },
  resolve: { conditions: ['rowmq-source', 'module', 'browser', 'production'] },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    target: 'es2022',
    modulePreload: false,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    reportCompressedSize: false,
    rolldownOptions: {
      output: {
        codeSplitting: false,
        entryFileNames: 'app.js',
        assetFileNames: 'app[extname]',
      },
    },
  },
});
