// npm run test:ha [-- --rounds N] [arguments for vitest]: what happens to RowMQ when servers, brokers and reapers die, hang and are restarted. Every fault, N times (3).
import { fail, prepare, runCommand } from './prepare.mjs';

const args = process.argv.slice(2);
const USAGE = 'usage: npm run test:ha -- [--rounds 1..999] [arguments for vitest]';
if (args.includes('--help')) {
  console.log(USAGE);
  process.exit(0);
}
const at = args.indexOf('--rounds');
const rounds = at === -1 ? '3' : args.splice(at, 2)[1];
if (!/^[1-9]\d{0,2}$/.test(rounds ?? '')) fail(USAGE, 2);
await prepare();
const command = ['vitest', 'run', '--project', 'mysql', 'test/ha', ...args];
process.exit(await runCommand('npx', command, { ...process.env, HA_ROUNDS: rounds }));
