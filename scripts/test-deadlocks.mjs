// test-deadlocks.mjs --minutes N [--servers mysql,mariadb]: every kind of statement meets every other for so long, on one server after the other.
import { parseArgs } from 'node:util';
import { fail, prepare, runCommand } from './prepare.mjs';

const KINDS = ['mysql', 'mariadb'];
const usage = 'usage: npm run test:deadlocks -- [--minutes N] [--servers mysql,mariadb]';
const { minutes, servers } = options();
await prepare();
let worst = 0;
for (const kind of servers) {
  const env = { ...process.env, DEADLOCKS_MINUTES: String(minutes) };
  const args = ['vitest', 'run', '--project', kind, 'test/concurrency/deadlocks.test.ts'];
  worst = Math.max(worst, await runCommand('npx', args, env));
}
process.exitCode = worst;

function options() {
  try {
    const { values } = parseArgs({
      options: { minutes: { type: 'string' }, servers: { type: 'string' }, help: { type: 'boolean' } },
    });
    if (values.help) {
      console.log(usage);
      process.exit(0);
    }
    const [chosen, length] = [(values.servers ?? KINDS.join(',')).split(','), Number(values.minutes ?? 10)];
    if (!(length > 0)) fail(`--minutes must be a number above 0\n${usage}`, 2);
    const unknown = chosen.find((kind) => !KINDS.includes(kind));
    if (unknown !== undefined) fail(`--servers must be of ${KINDS.join(', ')}, not '${unknown}'\n${usage}`, 2);
    return { minutes: length, servers: chosen };
  } catch (error) {
    return fail(`${error.message}\n${usage}`, 2);
  }
}
