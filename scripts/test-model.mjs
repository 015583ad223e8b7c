// test-model.mjs: the store against the model of the lease protocol (test/model), as many random histories as asked for, on every kind of server or one.
import { parseArgs } from 'node:util';
import { fail, prepare, runCommand } from './prepare.mjs';

const USAGE =
  'usage: npm run test:model -- [--runs 10000] [--server mysql|mariadb] [--seed NUMBER [--path PATH]]\n' +
  'A failure prints the seed and the path that show it again.';

const { runs, server, seed, path } = options();
await prepare();
const env = {
  ...process.env,
  ROWMQ_MODEL_RUNS: runs,
  ...(seed !== undefined && { ROWMQ_MODEL_SEED: seed }),
  ...(path !== undefined && { ROWMQ_MODEL_PATH: path }),
};
const projects = (server === undefined ? ['mysql', 'mariadb'] : [server]).flatMap((kind) => ['--project', kind]);
process.exitCode = await runCommand('npx', ['vitest', 'run', ...projects, 'test/model'], env);

function options() {
  try {
    const { values } = parseArgs({
      options: {
        runs: { type: 'string', default: '10000' },
        server: { type: 'string' },
        seed: { type: 'string' },
        path: { type: 'string' },
        help: { type: 'boolean' },
      },
    });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    if (!/^[1-9]\d*$/.test(values.runs)) throw new Error(`--runs must be a whole number from 1, not ${values.runs}.`);
    if (values.server !== undefined && !['mysql', 'mariadb'].includes(values.server)) {
      throw new Error(`--server must be mysql or mariadb, not ${values.server}.`);
    }
    if (values.seed !== undefined && !/^-?\d+$/.test(values.seed)) {
      throw new Error(`--seed must be a whole number, not ${values.seed}.`);
    }
    if (values.path !== undefined && values.seed === undefined) throw new Error('--path needs --seed.');
    return values;
  } catch (error) {
    return fail(`${error.message}\n${USAGE}`, 2);
  }
}
