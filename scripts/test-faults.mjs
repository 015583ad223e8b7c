// npm run test:faults [-- --seconds N] [arguments for vitest]: breaks RowMQ under load on every kind of server, and prints what came of it.
import { readFile, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fail, prepare, root, runCommand } from './prepare.mjs';

const DEFAULT_SECONDS = '30';

const args = process.argv.slice(2);
if (args.includes('--help')) {
  console.log(
    'usage: npm run test:faults [-- --seconds N] [arguments for vitest]\n\n  --seconds N   how long each fault keeps striking (default: 30)',
  );
  process.exit(0);
}
const at = args.indexOf('--seconds');
const seconds = at < 0 ? DEFAULT_SECONDS : args.splice(at, 2)[1];
if (!(Number(seconds) >= 1)) fail('--seconds takes a number of at least 1', 2);

await prepare();
const results = join(root, '.rowmq-test', 'results');
await rm(results, { recursive: true, force: true });
const code = await runCommand('npx', ['vitest', 'run', 'test/faults', ...args], {
  ...process.env,
  ROWMQ_FAULT_SECONDS: seconds,
});
for (const file of await readdir(results).catch(() => [])) {
  console.log(`\n${file}:\n\n${await readFile(join(results, file), 'utf8')}`);
}
process.exitCode = code;
